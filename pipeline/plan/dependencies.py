"""The import closure of a script: the files of this project that it imports, directly or not.

DVC does not follow imports, so the graph lists these files as dependencies: an edit re-runs the
stages whose import closure contains the file, and no others.
"""

import ast
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from pipeline.code_files import import_name, locate, parse, path_of
from pipeline.errors import UserError

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("pipeline", "stages")  # of this project, whose packages are installed with it


class Import(NamedTuple):
    """One import statement: ``from {level dots}{module} import {names}``."""

    level: int
    module: str
    names: tuple[str, ...]


def closure(*sources: str, root: Path = ROOT) -> list[str]:
    """Return the local files that ``sources`` import, themselves included, sorted.

    Local files are those under ``root`` or beside a source that is a file, as on Python's search
    path; not those of installed packages and the standard library. The closure has relative
    imports, imports inside functions, and ``__init__.py`` files with code; not the imports under
    ``if TYPE_CHECKING``. A process reads each file once.

    Args:
        sources: modules ("stages.prune") or files ("mine/net.py", as `code_files` finds them).
        root: the folder that Python searches first.

    Returns:
        Paths relative to ``root``; for files elsewhere those of `code_files.path_of`.

    Raises:
        UserError: a file is not valid Python, the folders of two sources both have a module that
            one of them imports, or a file of the user's imports at its top what is not installed.

    """
    return list(_closure(sources, root))


@cache
def _closure(sources: tuple[str, ...], root: Path) -> tuple[str, ...]:
    files = {source: locate(source, root) for source in sources if source.endswith(".py")}
    places = [root, *dict.fromkeys(import_name(file)[0] for file in files.values())]
    waiting: list[Path] = []
    for source in sources:
        waiting += _with_packages(files[source]) if source in files else _absolute(source, places)
    seen: set[Path] = set()
    while waiting:
        file = waiting.pop()
        if file not in seen and file.is_file():
            seen.add(file)
            waiting.extend(_imported(file, places))
    if files:
        ours = [root / package for package in PACKAGES]
        own = [file for file in seen if not any(map(file.is_relative_to, ours))]
        _check_installed(sorted(own), places)
    return tuple(sorted({_path(file, root) for file in seen if file.stat().st_size}))


def _path(file: Path, root: Path) -> str:
    return str(file.relative_to(root)) if file.is_relative_to(root) else path_of(file, root)


def _with_packages(file: Path) -> list[Path]:
    """Return ``file`` and the ``__init__.py`` of the packages that it lies in."""
    files, folder = [file], file.parent
    while (folder / "__init__.py").is_file():
        files.append(folder / "__init__.py")
        folder = folder.parent
    return files


def _imported(file: Path, places: Sequence[Path]) -> Iterator[Path]:
    """Yield the local files that ``file`` imports, and those of the packages around them."""
    for level, module, names in _imports(file):
        if level:
            folder = file.parents[level - 1]
            yield folder / "__init__.py"
            for name in (module, *(f"{module}.{name}".lstrip(".") for name in names)):
                yield from _inside(folder, name)
        else:
            for name in (module, *(f"{module}.{name}" for name in names)):
                yield from _absolute(name, places)


def _check_installed(files: Iterable[Path], places: Sequence[Path]) -> None:
    """Refuse an import at the top of one of the user's ``files`` that nothing can satisfy.

    Imports under `if` and `try` and in functions may fail, and a file that changes `sys.path` may
    import from anywhere.
    """
    trees = {file: parse(file) for file in files}
    if any(ast.unparse(node) == "sys.path" for tree in trees.values() for node in ast.walk(tree)
           if isinstance(node, ast.Attribute)):  # fmt: skip
        return
    for file, tree in trees.items():
        for node in tree.body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for top in (name.partition(".")[0] for name in names):
                if not _exists(top, places):
                    raise UserError(
                        f"{path_of(file)} imports {top} (line {node.lineno}), which is neither "
                        "installed nor in a file beside it: install it, or correct the name"
                    )


def _exists(top: str, places: Sequence[Path]) -> bool:
    """Return whether a module or package of this name is installed or in one of ``places``."""
    local = any((place / f"{top}.py").is_file() or (place / top).is_dir() for place in places)
    return local or top in sys.modules or find_spec(top) is not None


def _absolute(module: str, places: Sequence[Path]) -> list[Path]:
    """Return the files of ``module`` in the first of ``places`` that has it or its package.

    The first place is the project; the standard library comes before the others. A folder without
    ``__init__.py`` counts only where no place has a module of that name.
    """
    top = module.partition(".")[0]
    places = places[:1] if top in sys.stdlib_module_names else places
    files = (f"{top}.py", f"{top}/__init__.py")
    having = [place for place in places if any((place / file).is_file() for file in files)]
    beside = having if having[:1] != places[:1] else []
    if len(beside) > 1:
        raise UserError(
            f"{beside[0]} and {beside[1]} both have a module {top}, and one process imports from "
            "both: rename one of the modules, or put the files into one folder"
        )
    having += [place for place in places if (place / top).is_dir()]
    return _inside(having[0], module) if having else []


def _inside(folder: Path, module: str) -> list[Path]:
    """Return the file of the dotted ``module`` under ``folder``, and those of its packages."""
    files = []
    for part in filter(None, module.split(".")):
        file = folder / f"{part}.py"
        folder /= part
        package = folder / "__init__.py"
        files.append(package if package.is_file() else file)
    return [file for file in files if file.is_file()]


@cache
def _imports(file: Path) -> tuple[Import, ...]:
    imports: list[Import] = []
    for node in _runtime_nodes(parse(file)):
        if isinstance(node, ast.Import):
            imports += [Import(0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            imports.append(Import(node.level, node.module or "", names))
    return tuple(dict.fromkeys(imports))


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
