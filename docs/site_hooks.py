"""Hooks of MkDocs: the pages of the site, and links between them.

The pages link to each other by their paths in the repository, which also work on GitHub. README.md
is the first page. A linked file that is no page, such as params.yaml, becomes a page with its text,
and a linked folder a page with the list of its files.
"""

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
FRONT = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE"]
REPORT = "reports/results.md"
# The order of the pages of docs/; others follow by their names.
FIRST = [
    *("usage", "methods", "tasks", "api", "extend", "inference"),
    *("paper", "imagenet", "results", "benchmarks", "gpu"),
]
# The API: its public functions, from the docstrings. A missing module has no page.
API = [
    "pipeline.api",
    "pipeline.prune",
    "pipeline.soup",
    "pipeline.schedules",
    "pipeline.averaging",
    "pipeline.train.loop",
    "pipeline.channels",
    "pipeline.evaluate",
    "pipeline.inference",
    "pipeline.export",
    "pipeline.storage.checkpoint",
]
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s]+)(\))")
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
DIAGRAM = re.compile(r"^```mermaid\n.*?^```$", re.MULTILINE | re.DOTALL)
# Mermaid would be loaded from another server. The drawing is that of the block, top to bottom.
DRAWING = "![The graph as a drawing](images/graph.svg)"


def on_config(config: "MkDocsConfig") -> None:
    """Set the navigation."""
    pages = [f"{name}.md" for name in FIRST] + _pages("docs")
    config.nav = [
        {"Home": "index.md"},
        {"Guide": list(dict.fromkeys(pages))},
        {"API": [{module: site_path(module)} for module in modules()]},
        {"Report": REPORT},
        {"Decisions": ["decisions/README.md", *_pages("docs/decisions")]},
        {"Project": ["data/README.md", *map(site_path, FRONT[1:])]},
    ]


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add the pages that do not lie in docs/: the front, the report, the API and linked files."""
    from mkdocs.structure.files import File  # noqa: PLC0415

    for path in (*FRONT, REPORT, *_figures()):
        files.append(File.generated(config, site_path(path), abs_src_path=str(ROOT / path)))
    for module in modules():
        text = f"# {module}\n\n::: {module}\n"
        files.append(File.generated(config, site_path(module), content=text))
    for path in sorted(linked(files)):
        page = File.generated(config, site_path(path), content=source_page(path))
        page.inclusion = page.inclusion.NOT_IN_NAV
        files.append(page)
    return files


def on_page_markdown(markdown: str, page: "Page", **_: object) -> str:
    """Return the text with links that lead to the pages of the site."""
    return rewrite(markdown, page.file.src_uri)


def rewrite(markdown: str, page: str) -> str:
    """Return the ``markdown`` of the site's ``page`` with links in the site, and no Mermaid."""
    text = DIAGRAM.sub(DRAWING, markdown)
    parts = FENCE.split(text)  # the odd ones are code
    parts[::2] = [LINK.sub(lambda link: _in_site(link, page), part) for part in parts[::2]]
    return "".join(parts)


def site_path(path: str) -> str:
    """Return the page of a module or of a file or folder of the repository.

    README.md is index.md, a file of docs/ and the report keep their places, and all others are in
    source/.
    """
    if path in API:
        return f"reference/{path}.md"
    if path == "README.md":
        return "index.md"
    if path in FRONT:
        return f"{path.removesuffix('.md')}.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return path if path.startswith("reports/") else f"source/{path}.md"


def repository_path(page: str) -> str:
    """Return the file of the repository that a page of the site shows: `site_path`, reversed."""
    for path in (*FRONT, REPORT):
        if site_path(path) == page:
            return path
    return f"docs/{page}"


def modules() -> list[str]:
    """Return the modules of the API that exist."""
    paths = {module: ROOT / module.replace(".", "/") for module in API}
    return [
        name for name, path in paths.items() if path.is_dir() or path.with_suffix(".py").exists()
    ]


def linked(files: "Files") -> set[str]:
    """Return the files and folders that pages link to and that are no pages, with their files."""
    found: set[str] = set()
    for file in files.documentation_pages():
        page = repository_path(file.src_uri)
        for _, link, _ in LINK.findall(file.content_string):
            target = _target(page, link)
            if target and site_path(target).startswith("source/") and (ROOT / target).exists():
                found |= {target, *_listed(target)}
    return found


def source_page(path: str) -> str:
    """Return the page of a file, with its text, or of a folder, with links to its files."""
    place = ROOT / path
    if place.is_dir():
        lines = [f"- [{Path(file).name}]({_relative(file, path)})" for file in _listed(path)]
        return f"# {path}/\n\n" + "\n".join(lines)
    language = {".py": "python", ".yaml": "yaml", ".csv": "text"}.get(place.suffix, "text")
    return f"# {path}\n\n````{language}\n{place.read_text(encoding='utf-8')}````\n"


def _in_site(link: "re.Match[str]", page: str) -> str:
    """Return a Markdown link of ``page`` as one in the site; addresses and anchors stay."""
    before, address, after = link.groups()
    target = _target(repository_path(page), address)
    if target is None or page.startswith("source/"):
        return link[0]
    anchor = address.partition("#")[2]
    path = posixpath.relpath(site_path(target), posixpath.dirname(page))
    return f"{before}{path}{'#' + anchor if anchor else ''}{after}"


def _target(page: str, link: str) -> str | None:
    """Return the path in the repository that a link of the file ``page`` leads to."""
    path = link.partition("#")[0]
    if not path or re.match(r"[a-z]+:", path):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), path))


def _relative(path: str, page: str) -> str:
    return posixpath.relpath(site_path(path), posixpath.dirname(site_path(page)))


def _listed(path: str) -> list[str]:
    """Return the text files of a folder; none of a file."""
    if not (ROOT / path).is_dir():
        return []
    names = sorted(file.name for file in (ROOT / path).iterdir())
    return [f"{path}/{name}" for name in names if name.endswith((".py", ".yaml", ".md", ".csv"))]


def _figures() -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "reports").glob("**/*.png"))


def _pages(folder: str) -> list[str]:
    files = sorted((ROOT / folder).glob("*.md"))
    paths = [file.relative_to(ROOT / "docs").as_posix() for file in files]
    return [path for path in paths if not path.endswith("README.md")]
