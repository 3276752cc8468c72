"""Code files: Python files outside this package that params.yaml names by their paths.

A relative path begins at the project's folder. A queued experiment runs in a temporary copy of
that folder; a file that the copy lacks is that of the main checkout. Every file has one path
(`path_of`), whichever way it is written, so that equal work has equal commands.

A process executes such a file only after `allow` (SECURITY.md): stages allow the files on their
command line, under ``--code``, and the library those that its caller names; neither executes a path
that only an artifact names.
"""

import ast
import hashlib
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import ParamSpec, TypeVar

from pipeline.errors import UserError, of_disk, of_memory

PROJECT = Path(__file__).parents[1]
_allowed: set[Path] = set()
_OTHERS = (  # code that is no user's, though it may lie in the same folder
    *(PROJECT / package for package in ("pipeline", "stages")),
    *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")),
)

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def is_path(name: str) -> bool:
    """Return whether ``name`` names a file of Python code, and not a member of this package."""
    return re.search(r"\.py(:|$)", name) is not None


def checkouts(root: Path = PROJECT) -> tuple[Path, ...]:
    """Return the folders of relative paths: this one, and the main one of a queued experiment."""
    return root, main_checkout(root)


def main_checkout(root: Path = PROJECT) -> Path:
    """Return the main checkout; a queued experiment runs in a temporary copy, ``root``, of it."""
    return Path(os.environ.get("DVC_ROOT") or root)


def locate(path: str, root: Path = PROJECT) -> Path:
    """Return the file that ``path`` names, links resolved; it need not exist."""
    places = [home / path for home in checkouts(root)]
    return next((place for place in places if place.is_file()), places[-1]).resolve()


def path_of(file: Path, root: Path = PROJECT) -> str:
    """Return the path of ``file`` in commands and dependencies, relative to the project.

    A file more than two folders above the project has an absolute path: in a queued experiment,
    three folders below it, a link there would lie in the checkout itself.
    """
    homes = [home.resolve() for home in checkouts(root)]
    for home in homes:
        if file.is_relative_to(home):
            return file.relative_to(home).as_posix()
    relative = Path(os.path.relpath(file, homes[-1])).as_posix()
    return file.as_posix() if relative.startswith("../../../") else relative


def allow(paths: Iterable[str]) -> None:
    """Let this process execute the files that ``paths`` name."""
    _allowed.update(map(locate, paths))


def allowed() -> list[Path]:
    """Return the files that this process may execute."""
    return sorted(_allowed)


def execute(path: str) -> ModuleType:
    """Return the module of the file at ``path``, executed once.

    It imports modules from its own folder, or from that which has its outermost package.

    Raises:
        UserError: the process may not execute the file, or it fails.
    """
    file = locate(path)
    if file not in _allowed:
        raise UserError(
            f"{path} is code that an artifact names, but that the command does not: it runs only "
            "if params.yaml names it, or the stage's flag --code"
        )
    if not file.is_file():
        raise UserError(f"{path} does not exist: put the file there, or correct the path")
    with reporting(f"{path} cannot be imported"):
        return _module(file)


@contextmanager
def reporting(what: str) -> Iterator[None]:
    """Turn what the user's code raises in the block into "WHAT: TYPE: MESSAGE (FILE, line N)".

    Errors of a full disk or short memory pass, and so does an interruption.

    Raises:
        UserError: the block raised this one, or another `Exception`, or a `SystemExit`.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        if of_disk(error) or of_memory(error):
            raise
        raise UserError(_sentence(what, error)) from error


def reported(function: Callable[Arguments, Result], name: str) -> Callable[Arguments, Result]:
    """Return the user's ``function``, which ``name`` names, with its errors as `reporting` does."""

    def call(*arguments: Arguments.args, **keywords: Arguments.kwargs) -> Result:
        with reporting(f"{name} fails"):
            return function(*arguments, **keywords)

    return call


def failure(error: BaseException) -> str | None:
    """Return the sentence of an error that passed a file of the user's; None for all others."""
    frame = _last_own_line(error)
    if frame is None or of_disk(error) or of_memory(error):
        return None
    return _sentence(f"{path_of(Path(frame.filename))} fails", error)


def _sentence(what: str, error: BaseException) -> str:
    frame, reason = _last_own_line(error), " ".join(str(error).split())
    line = f" ({Path(frame.filename).name}, line {frame.lineno})" if frame else ""
    return f"{what}: {type(error).__name__}{f': {reason}' if reason else ''}{line}: correct it"


def _last_own_line(error: BaseException) -> traceback.FrameSummary | None:
    """Return the last line that the error passed in the folders of the user's files."""
    folders = [import_name(file)[0] for file in _allowed]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        own = any(file.is_relative_to(folder) for folder in folders)
        if own and not any(file.is_relative_to(other) for other in _OTHERS):
            return frame
    return None


def import_name(file: Path) -> tuple[Path, str]:
    """Return the folder from which Python imports ``file``, and its dotted name there."""
    folder, name = file.parent, file.stem
    while (folder / "__init__.py").is_file():
        folder, name = folder.parent, f"{folder.name}.{name}"
    return folder, name


def _search(folder: Path) -> None:
    """Let Python find modules in ``folder``: after the standard library, before installed ones."""
    if str(folder) in sys.path:
        return
    library = Path(sysconfig.get_path("stdlib"))
    places = [library, library / "lib-dynload"]
    last = max(number for number, place in enumerate(sys.path) if Path(place) in places)
    sys.path.insert(last + 1, str(folder))


@cache
def _module(file: Path) -> ModuleType:
    folder, name = import_name(file)
    _search(folder)
    if "." in name:
        module = import_module(name)
        if Path(module.__file__ or "").resolve() != file:
            raise UserError(
                f"{file} is the module {name}, but another package of that name is imported "
                "already: rename the folder"
            )
        return module
    # Under a name of its own, so that random.py is not the standard library's.
    unique = f"{name}_{hashlib.sha256(bytes(file)).hexdigest()[:8]}"
    spec = spec_from_file_location(unique, file)
    assert spec is not None, "a file that ends in .py has a loader"
    assert spec.loader is not None
    module = sys.modules[unique] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[unique]
        raise
    return module


def parse(file: Path) -> ast.Module:
    """Return the syntax tree of ``file``.

    Raises:
        UserError: it is not valid Python.
    """
    info = file.stat()
    return _parse(file, (info.st_mtime_ns, info.st_size))


@cache
def _parse(file: Path, stamp: tuple[int, int]) -> ast.Module:  # noqa: ARG001 - a new key
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{file} is not valid Python ({error}): correct it") from error


def definitions(tree: ast.Module) -> dict[str, ast.stmt]:
    """Return the statements that define names at the top of a module, by name."""
    defined: dict[str, ast.stmt] = {}
    waiting: list[ast.AST] = list(reversed(tree.body))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined[node.name] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = (alias.asname or alias.name.partition(".")[0] for alias in node.names)
            defined.update(dict.fromkeys(names, node))
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = (name.id for target in targets for name in ast.walk(target)
                     if isinstance(name, ast.Name))  # fmt: skip
            defined.update(dict.fromkeys(names, node))
        elif isinstance(node, ast.If | ast.Try | ast.With):
            waiting += reversed(list(ast.iter_child_nodes(node)))
        elif isinstance(node, ast.ExceptHandler):
            waiting += reversed(node.body)
    return defined
