"""Which files of the project a script imports: what its results depend on.

DVC does not follow imports, so the graph lists them: an edit re-runs the stages whose import
closure it touches, and no others.
"""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
ROOMS = ("pipeline", "stages")


def closure(module: str, *named: str) -> list[str]:
    """Return the files, relative to the root, that ``module`` and ``named`` import, sorted.

    Counts imports inside functions too, and not those for the type checker only. Packages count
    only where their ``__init__.py`` holds code.
    """
    seen: set[str] = set()
    waiting = [module, *named]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(_imports(name))
    files = {_file(name) for name in seen}
    return sorted(str(file.relative_to(ROOT)) for file in files if file and file.stat().st_size)


def _file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    return next((f for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()), None)


@cache
def _imports(module: str) -> frozenset[str]:
    """Return the modules of the project that ``module`` imports, and its parent packages."""
    file = _file(module)
    if file is None:
        return frozenset()
    found = {module.rpartition(".")[0]} - {""}
    for node in _runtime_nodes(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(name for name in found if name.split(".")[0] in ROOMS and _file(name))


def _runtime_nodes(tree: ast.AST) -> list[ast.AST]:
    """Return all nodes of ``tree`` that are not under ``if TYPE_CHECKING:``."""
    nodes, waiting = [], [tree]
    while waiting:
        node = waiting.pop()
        nodes.append(node)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting.extend(node.orelse)
        else:
            waiting.extend(ast.iter_child_nodes(node))
    return nodes
