# One command each: `make repro` and `make test` set up .venv by themselves on a fresh machine.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
ARGS ?=

# Nothing here phones home.
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
export PRE_COMMIT_HOME := $(CURDIR)/$(VENV)/pre-commit
# Without its bytecode torch takes nearly twice as long to import, in every process.
unexport PYTHONDONTWRITEBYTECODE

MLFLOW_TRACKING_URI ?= sqlite:///mlflow.db

.PHONY: help setup repro test test-fast check recipes methods studies report tables bundle intake bench golden ui constraints clean

help:  ## list what can be made (the default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: $(INSTALLED)  ## create .venv and install everything; does nothing when up to date

# The stamp is written last, so an interrupted installation is taken up again. Of 30,000 files most
# are never imported: not pip but the last line compiles what is, and shows that torch and
# torchvision fit. imagecorruptions-imaug comes without its opencv-python, which would overwrite
# the headless build (see pyproject.toml).
$(INSTALLED): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
	  echo "error: there is no $(PYTHON) here; install Python 3.11 or newer (Debian: apt install python3 python3-venv)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is $$($(PYTHON) -V 2>&1), and 3.11 or newer is needed; name one, as in: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: this Python cannot create virtual environments; on Debian: apt install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV): a few minutes and about 6 GB, once."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --no-compile -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --no-compile -c constraints.txt --no-deps imagecorruptions-imaug
	$(BIN)/python -W ignore -c 'import cv2, dvc.cli, matplotlib.pyplot, mlflow, mypy.api, pandas, pytest, skimage, sklearn.datasets, torch, torchvision'
	@touch $@

repro: $(INSTALLED)  ## run the graph that params.yaml describes, then the report
	$(BIN)/dvc repro $(ARGS)

test: $(INSTALLED)  ## run every test, except those that need a GPU
	$(BIN)/python -m pytest -n auto -m 'not gpu' $(ARGS)

test-fast: $(INSTALLED)  ## run the tests that take no more than a few seconds each
	$(BIN)/python -m pytest -n auto $(ARGS)

check: $(INSTALLED)  ## lint, formatting, types, import rules, spelling (.pre-commit-config.yaml)
	$(BIN)/pre-commit run --all-files

recipes: $(INSTALLED)  ## list the recipes
	@$(BIN)/python -m pipeline recipes

methods: $(INSTALLED)  ## list the methods that params.yaml may name
	@$(BIN)/python -m pipeline methods

studies: $(INSTALLED)  ## list the studies that params.yaml may name
	@$(BIN)/python -m pipeline studies

report: $(INSTALLED)  ## write reports/ again from the artifacts that are up to date
	$(BIN)/python -m pipeline report

tables: $(INSTALLED)  ## write every table of README.md and docs/ again from stored results
	$(BIN)/python -m pipeline.pages

bundle: $(INSTALLED)  ## write dist/bundle, which runs the graph without a network (docs/gpu.md)
	$(BIN)/python -m pipeline.bundle build $(if $(PYTHON_VERSION),--python $(PYTHON_VERSION)) \
	  $(if $(PLATFORM),--platform $(PLATFORM)) $(addprefix --data ,$(DATA)) \
	  $(if $(WITH),--with $(WITH)) $(ARGS)

intake: $(INSTALLED)  ## take in what a bundle brought back: make intake FILES='back/*'
	$(BIN)/python -m pipeline.bundle intake $(FILES)

bench: $(INSTALLED)  ## time the training loop against the obvious PyTorch one
	$(BIN)/python -m benchmarks.loop $(ARGS)
	$(BIN)/python -m benchmarks.loop --workers 2 $(ARGS)

golden: $(INSTALLED)  ## rewrite the golden numbers; the pull request says why
	SMS_GOLDEN=write $(BIN)/python -m pytest -m 'not gpu' -k golden

ui: $(INSTALLED)  ## open the MLflow UI on the recorded runs
	$(BIN)/mlflow ui --backend-store-uri '$(MLFLOW_TRACKING_URI)' $(ARGS)

constraints: $(INSTALLED)  ## rewrite constraints.txt from what .venv holds
	@grep '^#' constraints.txt > constraints.new
	@$(BIN)/pip freeze --exclude-editable \
	  | sed -E -e '/ @ |^-|^(nvidia|cuda)-|^triton==/d' -e 's/\+.*//' >> constraints.new
	@mv constraints.new constraints.txt

clean:  ## remove caches and built files; never data, results, the DVC cache or MLflow's runs
	rm -rf build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
