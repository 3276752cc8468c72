"""The stages of a run in DVC: their order, the cache, and the lock file.

It does what ``dvc repro stages/dvc.yaml`` does, in the same order, with DVC's own functions, and
ends with the same lock file; only, other stages may run meanwhile. Where it departs from
``dvc.stage.Stage.run`` and ``dvc.dvcfile``:

- The inputs of a stage are hashed when it begins, and that is what is recorded. DVC hashes them
  again afterwards, and so takes code that was edited meanwhile for the code that ran.
- Hashes of inputs are remembered by path, time, size and inode: stages share most of their code.
- The lock file is written as text, entry by entry: DVC parses and prints all of it per stage.
- Entries of stages that are no longer in stages/dvc.yaml are dropped; DVC keeps them for ever.
"""

import logging
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException  # type: ignore[import-untyped]
from dvc.lock import LockError  # type: ignore[import-untyped]
from dvc.repo import Repo  # type: ignore[import-untyped]
from dvc.repo.graph import build_graph  # type: ignore[import-untyped]
from dvc.repo.reproduce import plan_repro  # type: ignore[import-untyped]
from dvc.rwlock import rwlock  # type: ignore[import-untyped]
from dvc.stage.cache import RunCacheNotFoundError  # type: ignore[import-untyped]
from dvc.stage.serialize import to_lockfile  # type: ignore[import-untyped]
from dvc.utils.serialize import dumps_yaml, load_yaml  # type: ignore[import-untyped]

from pipeline.errors import UserError
from pipeline.run.command import uses_gpu
from pipeline.run.dvc_files import load_stages, no_collection
from pipeline.run.file_stamps import file_stamps
from pipeline.run.interfaces import DiskFullError, StageError, Task
from pipeline.run.lock_file import HEADER, entries
from pipeline.storage import disk_space
from pipeline.storage.atomic_files import atomic_file


class DvcGraph:
    """The stages of one dvc.yaml, as a `pipeline.run.interfaces.Graph`."""

    def __init__(self, root: Path, file: str = "stages/dvc.yaml") -> None:
        for name in ("dvc", "dvc_data", "dvc_objects"):  # from this level on: no progress bars
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            with no_collection():
                self.repo = Repo(str(root))
                stages = load_stages(self.repo, root / file)
                graph = build_graph(stages)
        except DvcException as error:
            raise UserError(f"{file}: {_sentence(error)}") from error
        self.repo.lock._friendly = False  # no progress bar while waiting
        order = plan_repro(graph, stages)
        self.stages = {stage.name: stage for stage in order}
        self.inputs: Mapping[str, Sequence[str]] = {
            stage.name: tuple(read.name for read in graph.successors(stage)) for stage in order
        }
        self.gpu: Collection[str] = {stage.name for stage in order if uses_gpu(_commands(stage))}
        self.cache = Path(self.repo.cache.local_cache_dir)
        self.lockfile = (root / file).with_suffix(".lock")
        self._texts: dict[str, str] = {}
        self._held: dict[str, AbstractContextManager[None]] = {}
        self._seen: dict[str, tuple[Any, Any]] = {}
        for stage in order:
            for dep in stage.deps:
                dep._build = partial(self._build, dep._build)

    def close(self) -> None:
        """Close DVC's databases."""
        self.repo.close()

    @contextmanager
    def bookkeeping(self) -> Iterator[bool]:
        """Hold the repository lock; gives False when another dvc command kept it for 3 s."""
        try:
            self.repo.lock.lock()
        except LockError:
            yield False
            return
        try:
            yield True
        finally:
            self.repo.lock.unlock()

    def restore(self, name: str) -> bool:
        """Say whether the outputs are there, or came out of the run cache.

        DVC's ``restore`` must see the inputs as the lock file has them: with ``save_deps`` called
        before, it would take the old outputs for those of the new inputs.
        """
        stage = self.stages[name]
        with _stage_errors():
            if not self._changed(stage):
                return True
            stage.remove_outs()
            try:
                self.repo.stage_cache.restore(stage)
            except RunCacheNotFoundError:
                return False
            stage.save_outs()
            self._record(stage)
        return True

    def output(self, name: str) -> str:
        """Return the hash of the first output of a stage that is up to date."""
        outs = self.stages[name].outs
        return str(outs[0].hash_info.value) if outs else ""

    def current(self) -> dict[str, str]:
        """Return the hash of each output that is up to date, as are all the stages it is made of.

        Raises:
            UserError: a file cannot be read.
        """
        hashes: dict[str, str] = {}
        for name, stage in self.stages.items():  # inputs come first
            try:
                if all(read in hashes for read in self.inputs[name]) and not self._changed(stage):
                    hashes[name] = stage.outs[0].hash_info.value
            except (DvcException, OSError) as error:
                raise UserError(_sentence(error)) from error
        return hashes

    def begin(self, name: str) -> Task:
        """Hash the inputs, clear the outputs and say what to run.

        Until the stage is kept or left, DVC's own read-write lock keeps other dvc commands from
        its inputs and outputs, as it would while DVC itself ran the stage.
        """
        stage = self.stages[name]
        with _stage_errors():
            held = rwlock(
                self.repo.tmp_dir,
                self.repo.fs,
                " ".join(sys.argv),
                [dep.fs_path for dep in stage.deps],
                [out.fs_path for out in stage.outs],
                self.repo.config["core"].get("hardlink_lock", False),
            )
            held.__enter__()
            self._held[name] = held
            try:
                stage.save_deps()
                stage.remove_outs()
            except BaseException:
                self.leave(name)
                raise
        return Task(_commands(stage), Path(stage.wdir), stage.addressing, name in self.gpu)

    def keep(self, name: str) -> None:
        """Cache the outputs and enter them, with the inputs of the beginning, in the run cache."""
        stage = self.stages[name]
        try:
            with _stage_errors():
                stage.save_outs()
                if all(out.use_cache or out.is_metric or out.is_plot for out in stage.outs):
                    self.repo.stage_cache.save(stage)
                stage.commit()
                self._record(stage)
        finally:
            self.leave(name)

    def leave(self, name: str) -> None:
        """Give other dvc commands the stage's files back."""
        with _stage_errors():
            self._held.pop(name).__exit__(None, None, None)

    def flush(self) -> None:
        """Write the lock file: this run's entries, and the old ones of stages that still exist.

        The order is that of a lock file which DVC writes from nothing.
        """
        old = self.lockfile.read_text(encoding="utf-8") if self.lockfile.exists() else ""
        before = self._entries(old)
        texts = before | self._texts
        after = {name: texts[name] for name in self.stages if name in texts}
        if after == before:
            return
        if not after:
            self.lockfile.unlink()
            return
        with _stage_errors(), atomic_file(self.lockfile) as new:
            new.write_text(HEADER + "".join(after.values()), encoding="utf-8")
        with self.repo.scm_context(quiet=True) as context:
            context.track_file(os.path.relpath(self.lockfile))

    def _entries(self, text: str) -> dict[str, str]:
        """Return the text of each stage's entry in a lock file."""
        found = entries(text)
        if found is not None:
            return found
        stages = load_yaml(str(self.lockfile)).get("stages") or {}
        return {name: _entry({name: stage}) for name, stage in stages.items()}

    def _record(self, stage: Any) -> None:
        self._texts[stage.name] = _entry(to_lockfile(stage))

    def _changed(self, stage: Any) -> bool:
        return (
            stage.changed_stage()
            or stage.is_callback
            or stage.always_changed
            or any(not self._same(dep) and dep.status() for dep in stage.deps)
            or any(out.status() for out in stage.outs)
        )

    def _same(self, dep: Any) -> bool:
        """Say whether an input is known to be what the lock file has; DVC asks more slowly."""
        seal, built = self._seen.get(dep.fs_path, (None, None))
        if seal is None or not dep.hash_info or built[2].hash_info != dep.hash_info:
            return False
        try:
            return bool(file_stamps(dep.fs_path) == seal)
        except OSError:
            return False

    def _build(self, build: Any, odb: Any, path: str, *rest: Any, **options: Any) -> Any:
        """Hash an input as ``build`` does, unless it is unchanged since the last time."""
        seal = file_stamps(path)
        if path not in self._seen or self._seen[path][0] != seal:
            self._seen[path] = seal, build(odb, path, *rest, **options)
        return self._seen[path][1]


def _commands(stage: Any) -> tuple[str, ...]:
    return tuple(stage.cmd if isinstance(stage.cmd, list) else stage.cmd.splitlines())


def _entry(stage: Mapping[str, Any]) -> str:
    """Print one entry as it stands in a whole lock file: where lines break depends on it."""
    text: str = dumps_yaml({"stages": stage})
    return text.removeprefix("stages:\n")


@contextmanager
def _stage_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if sentence := disk_space.shortage(error):  # also where DVC's own databases find it
            raise DiskFullError(sentence) from error
        if isinstance(error, DvcException | OSError):
            raise StageError(_sentence(error)) from error
        raise


def _sentence(error: Exception) -> str:
    return str(error) or type(error).__name__
