"""The documentation as a site: links on GitHub and in the site, the API from docstrings."""

import ast
import html
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.project import ROOT

LINKS = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=\"?(?:https?:)?//[^>]*>")
STYLES = re.compile(r"@import|url\([\"']?(?:https?:)?//")


def module(name):
    """Import a file of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


hooks = module("site_hooks")


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("index.md", "docs/usage.md#settings", "usage.md#settings"),
        ("index.md", "params.yaml", "source/params.yaml.md"),
        ("index.md", "pipeline/prune", "source/pipeline/prune.md"),
        ("index.md", "reports/figures/accuracy.png", "reports/figures/accuracy.png"),
        ("usage.md", "../README.md", "index.md"),
        ("usage.md", "images/mlflow.png", "images/mlflow.png"),
        ("usage.md", "../pipeline/config/schema.py", "source/pipeline/config/schema.py.md"),
        ("decisions/README.md", "../../CONTRIBUTING.md", "../CONTRIBUTING.md"),
        ("reports/results.md", "figures/layers.png", "figures/layers.png"),
        ("reports/results.md", "../docs/paper.md", "../paper.md"),
        ("usage.md", "#settings", "#settings"),
        ("usage.md", "https://example.org/a.md", "https://example.org/a.md"),
    ],
)
def test_links_lead_to_the_pages_of_the_site(page, link, expected):
    assert hooks.rewrite(f"see [it]({link}), ![x]({link})", page) == (
        f"see [it]({expected}), ![x]({expected})"
    )


def test_links_in_code_stay():
    code = "```python\nx = '[a](../README.md)'\n```"
    assert hooks.rewrite(code, "usage.md") == code


def test_the_guide_has_every_page_and_begins_with_what_most_readers_need():
    config = SimpleNamespace()
    hooks.on_config(config)
    guide = next(section["Guide"] for section in config.nav if "Guide" in section)
    assert sorted(guide) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))
    assert {f"{name}.md" for name in ("usage", "api", "extend", "inference")} <= set(guide[:6])


def test_every_page_has_its_place_and_back():
    for path in (*hooks.FRONT, hooks.REPORT, "docs/usage.md", "docs/decisions/README.md"):
        assert hooks.repository_path(hooks.site_path(path)) == path


def test_the_drawing_has_the_labels_of_the_diagram():
    """docs/images/graph.svg is drawn from the Mermaid block, which GitHub draws itself."""
    block = hooks.DIAGRAM.search((ROOT / "docs/architecture.md").read_text())[0]
    labels = [*re.findall(r"\[(.+?)\]", block), "data", "the same run"]
    svg = (ROOT / "docs/images/graph.svg").read_text()
    drawn = html.unescape(re.sub(r"<style.*?</style>|<[^>]+>|\s", "", svg, flags=re.DOTALL))
    assert len(labels) > 15
    for label in labels:
        assert re.sub(r"<br>|\s", "", label) in drawn, label
    assert not re.search(r"href=.http|<script", svg)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site, in which a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-d", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def pages(site: Path) -> dict[str, str]:
    return {page.relative_to(site).as_posix(): page.read_text() for page in site.rglob("*.html")}


@pytest.mark.extras
def test_the_site_has_every_page_and_loads_nothing_from_elsewhere(site):
    texts = pages(site)
    for page in [*(ROOT / "docs").rglob("*.md"), *map(ROOT.joinpath, hooks.FRONT)]:
        path = hooks.site_path(page.relative_to(ROOT).as_posix()).removesuffix(".md")
        path = re.sub(r"README$", "index", path)
        assert f"{path}.html" in texts
    assert 'src="reports/figures/accuracy.png"' in texts["index.html"]
    assert (site / "reports/figures/accuracy.png").stat().st_size > 0
    assert {name: found for name, text in texts.items() if (found := LINKS.findall(text))} == {}
    for style in site.rglob("*.css"):
        assert STYLES.search(style.read_text()) is None, style
    # Material loads Mermaid from another server for these.
    assert not any('class="mermaid"' in text for text in texts.values())


@pytest.mark.extras
def test_the_api_lists_every_public_function_with_its_docstring(site):
    names = hooks.modules()
    assert {"pipeline.prune", "pipeline.soup", "pipeline.train.loop"} <= set(names)
    assert {"pipeline.inference", "pipeline.export"} <= set(names)
    for name in names:
        page = (site / "reference" / f"{name}.html").read_text()
        path = ROOT / name.replace(".", "/")
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
        for file in files:
            inner = file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
            if any(part.startswith("_") for part in inner.split(".")):
                continue
            for function in ast.parse(file.read_text()).body:
                if isinstance(function, ast.FunctionDef) and not function.name.startswith("_"):
                    assert f'id="{inner}.{function.name}"' in page, (inner, function.name)


@pytest.mark.extras
def test_equations_are_code_and_sources_are_paragraphs(site):
    soups = (site / "reference" / "pipeline.soup.html").read_text()
    equation = re.escape("theta = (theta_1 + ... + theta_m) / m")
    assert re.search(rf"<code>(?:<[^>]+>)*{equation}", soups)
    assert "<strong>Source:</strong> Sparse Model Soups, section 2.2; Wortsman" in soups
    for page in (site / "reference").glob("*.html"):
        assert not re.search(r'<details class="(?!mkdocstrings-source)', page.read_text()), page


@pytest.mark.extras
def test_continued_lines_of_a_titled_paragraph_are_joined():
    paragraphs = module("site_docstrings").paragraphs
    text = "Law.\n\n    x = y\n\nArgs:\n    a: one\n        two\n\nSource: A,\n    B: c,\n    D."
    assert paragraphs(text) == (
        "Law.\n\n    x = y\n\nArgs:\n    a: one\n        two\n\n**Source:** A, B: c, D."
    )
