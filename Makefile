# `make repro` and `make test` create .venv first where it is missing or out of date.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
EXTRAS := $(VENV)/installed-extras
ARGS ?=

# No tool sends usage statistics or looks for updates.
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
export PRE_COMMIT_HOME := $(CURDIR)/$(VENV)/pre-commit
# Without compiled bytecode `import torch` takes nearly twice as long in every process.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup extras repro test test-fast test-extras mutants faults soak check recipes methods studies report tables bundle intake bench golden experiments ui docs constraints clean

help:  ## list these commands (the default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: $(INSTALLED)  ## create .venv and install everything; nothing to do when it is up to date

# The stamp is written last, so an interrupted installation is continued. pip does not compile its
# 30,000 files, of which most are never imported. The last line compiles those that are, and checks
# that torch and torchvision fit. imagecorruptions-imaug is installed without its dependency
# opencv-python, which would overwrite the headless build (see pyproject.toml).
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

extras: $(EXTRAS)  ## add the optional packages: export, timm, Ray, other training loops, documentation

$(EXTRAS): $(INSTALLED)
	$(BIN)/pip install --no-compile -c constraints.txt -e '.[dev,extras]'
	@touch $@

repro: $(INSTALLED)  ## run what params.yaml asks for, then write the report
	$(BIN)/dvc repro $(ARGS)

test: $(INSTALLED)  ## run all tests that need no GPU
	$(BIN)/python -m pytest -n auto -m 'not gpu and not extras' $(ARGS)

test-fast: $(INSTALLED)  ## run the tests that take a few seconds at most each
	$(BIN)/python -m pytest -n auto $(ARGS)

test-extras: $(EXTRAS)  ## run the tests that need the optional packages
	$(BIN)/python -m pytest -n auto -m extras $(ARGS)

mutants: $(INSTALLED)  ## change pipeline/ in small ways and count what the fast tests notice: ARGS='--sample 200'
	@test -d build/mutants/tools || $(BIN)/pip install --quiet --target build/mutants/tools coverage
	$(BIN)/python -m tests.mutants $(ARGS)

check: $(INSTALLED)  ## check style, formatting, types, import contracts, spelling
	$(BIN)/pre-commit run --all-files

faults: $(INSTALLED)  ## disturb small runs in all ways, 200 trials in up to two hours (docs/trust.md)
	$(BIN)/python -m tests.faults $(ARGS)

soak: $(INSTALLED)  ## run 500 toy experiments in a row, half of them interrupted (docs/trust.md)
	$(BIN)/python -m tests.soak $(ARGS)

recipes: $(INSTALLED)  ## list the recipes
	@$(BIN)/python -m pipeline recipes

methods: $(INSTALLED)  ## list methods, merge rules, allocations and schedules
	@$(BIN)/python -m pipeline methods

studies: $(INSTALLED)  ## list the studies that params.yaml may name
	@$(BIN)/python -m pipeline studies

report: $(INSTALLED)  ## rewrite reports/ from the artifacts that are up to date
	$(BIN)/python -m pipeline report

tables: $(INSTALLED)  ## rewrite the tables of README.md and docs/ from stored results
	$(BIN)/python -m pipeline.pages

bundle: $(INSTALLED)  ## write dist/bundle, which runs without a network (docs/gpu.md)
	$(BIN)/python -m pipeline.bundle build $(if $(PYTHON_VERSION),--python $(PYTHON_VERSION)) \
	  $(if $(PLATFORM),--platform $(PLATFORM)) $(addprefix --data ,$(DATA)) \
	  $(if $(WITH),--with $(WITH)) $(ARGS)

intake: $(INSTALLED)  ## import the results of a bundle: make intake FILES='back/*'
	$(BIN)/python -m pipeline.bundle intake $(FILES)

bench: $(INSTALLED)  ## compare the training loop with a plain PyTorch loop
	$(BIN)/python -m benchmarks.loop $(ARGS)
	$(BIN)/python -m benchmarks.loop --workers 2 $(ARGS)

golden: $(INSTALLED)  ## rewrite the golden numbers (CONTRIBUTING.md says when)
	SMS_GOLDEN=write $(BIN)/python -m pytest -m 'not gpu and not extras' -k golden

experiments: $(INSTALLED)  ## compare the experiments, the best first: ARGS='--sort-by created -A'
	@$(BIN)/python -m pipeline experiments $(ARGS)

ui: $(INSTALLED)  ## open the saved views of the MLflow UI
	@$(BIN)/python -m pipeline ui $(ARGS)

docs: $(EXTRAS)  ## build the documentation with the API as a site, dist/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build $(ARGS)

constraints: $(EXTRAS)  ## rewrite constraints.txt from the packages in .venv
	@grep '^#' constraints.txt > constraints.new
	@$(BIN)/pip freeze --exclude-editable \
	  | sed -E -e '/ @ |^-|^(nvidia|cuda)-|^triton==/d' -e 's/\+.*//' >> constraints.new
	@mv constraints.new constraints.txt

clean:  ## remove build files and tool caches; keeps data, results, DVC's cache and MLflow's runs
	rm -rf build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
