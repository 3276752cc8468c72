"""The pages name only files, links, commands, keys and variables that exist."""

import ast
import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from pipeline import registry
from pipeline.config.experiment import RECIPES, Experiment
from tests.project import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
FOLDERS = r"pipeline|stages|docs|tests|recipes|benchmarks|\.ci|\.github"
PATH = re.compile(rf"(?<![\w/.-])(?:{FOLDERS})/[\w./-]*[\w/]")
WRITTEN = {"stages/provenance.json", "docs/data/runs.csv", "docs/data/card.csv"}  # by commands
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`|^    (.+)$", re.MULTILINE)

every_page = pytest.mark.parametrize(
    "page", PAGES, ids=[page.relative_to(ROOT).as_posix() for page in PAGES]
)


def codes(text: str) -> list[str]:
    """Return the code of a page: between backticks, or indented."""
    return [inline or indented for inline, indented in CODE.findall(text)]


def slugs(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def cells(page: Path, heading: str) -> set[str]:
    """Return the code in the first column of the table below ``heading``."""
    section = f"\n{page.read_text()}".partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    column = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for cell in column for name in re.findall(r"`(\w+)`", cell)}


def keys(section: type[BaseModel] = Experiment, prefix: str = "") -> set[str]:
    """Return the keys of params.yaml and recipes, as `-S` names them."""
    found = set()
    for name, field in section.model_fields.items():
        kind = field.annotation
        inner = isinstance(kind, type) and issubclass(kind, BaseModel)
        found |= keys(kind, f"{prefix}{name}.") if inner else {prefix + name}
    return found if prefix else found | {"seed"}


@every_page
def test_paths_exist(page):
    named = {path.rstrip(".") for path in PATH.findall(page.read_text())} - WRITTEN
    concrete = {re.sub(r"/\w*NAME.*", "", path) for path in named}
    assert [path for path in sorted(concrete) if not (ROOT / path).exists()] == []


@every_page
def test_modules_exist(page):
    known = {file.name for folder in ("pipeline", "stages") for file in (ROOT / folder).rglob("*")}
    named = [code for code in codes(page.read_text()) if re.fullmatch(r"[a-z_]+\.py", code)]
    assert [name for name in named if name not in known] == []


@every_page
def test_links_lead_somewhere(page):
    broken = []
    for link in LINK.findall(page.read_text()):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        if not re.match(r"https?:", link) and not (
            target.exists() and (not anchor or anchor in slugs(target.read_text()))
        ):
            broken.append(link)
    assert broken == []


@every_page
def test_make_has_the_targets(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = [target for code in codes(page.read_text()) for target in re.findall(
        r"(?:^|[;&] *)make ([a-z-]+)", code)]  # fmt: skip
    assert [target for target in named if target not in targets] == []


@every_page
def test_keys_are_those_of_params_yaml(page):
    params, known = yaml.safe_load((ROOT / "params.yaml").read_text()), keys()
    for plus, key in re.findall(r"-S '?(\+?)([\w.]+)=", page.read_text()):
        assert key in known or key.startswith("study."), key
        *sections, last = key.split(".")
        place = params
        for section in sections:
            place = place.get(section, {})
        assert bool(plus) is (last not in place), f"{key}: a plus adds what params.yaml lacks"


@every_page
def test_environment_variables_are_read(page):
    files = [*(ROOT / "pipeline").rglob("*.py"), ROOT / "stages/run"]
    code = "\n".join(file.read_text() for file in files)
    assert [name for name in re.findall(r"\bSMS_\w+", page.read_text()) if name not in code] == []


@every_page
def test_python_is_python(page):
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        ast.parse(block)


def test_readme_is_short_and_shows_the_code_of_sms():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    assert "\n\n\n" not in text
    sms = (ROOT / "pipeline/plan/methods/sms.py").read_text()
    shown = re.search(r"```python\n(for phase.*?)```", text, re.DOTALL).group(1)
    assert "".join(f"        {line}\n" for line in shown.splitlines()) in sms


@pytest.mark.parametrize(
    ("heading", "folder"),
    [
        ("## `methods`", "plan/methods"),
        ("## `merge`", "soup"),
        ("## What is pruned", "prune/allocations"),
        ("## `studies`", "plan/studies"),
    ],
)
def test_methods_page_lists_every_name(heading, folder):
    assert cells(DOCS / "methods.md", heading) == set(registry.names(folder))


def test_tasks_page_lists_every_recipe():
    listed = cells(DOCS / "tasks.md", "# Tasks and data")
    assert listed == {file.stem for file in RECIPES.glob("*.yaml")}


def test_decisions_are_numbered_and_listed_by_their_titles():
    pages = sorted((DOCS / "decisions").glob("[0-9]*.md"))
    index = (DOCS / "decisions/README.md").read_text()
    listed = re.findall(r"^(\d+)\. \[(.+)\]\((.+)\)$", index, re.MULTILINE)
    titles = [page.read_text().partition("\n")[0].removeprefix("# ") for page in pages]
    assert listed == [
        (str(number), title, page.name)
        for number, (title, page) in enumerate(zip(titles, pages, strict=True), start=1)
    ]
    assert [page.name[:2] for page in pages] == [f"{n:02}" for n in range(1, len(pages) + 1)]
