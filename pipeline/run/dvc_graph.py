"""The stages of a run in DVC: their order, the cache, and the lock file.

The results and the lock file are those of ``dvc repro stages/dvc.yaml``, by DVC's own functions;
but several stages run at once. Differences from ``dvc.stage.Stage.run`` and ``dvc.dvcfile``:

- The hashes of a stage's inputs are those of its beginning. DVC hashes inputs at the end, and so
  records code that was edited meanwhile as the code that ran.
- Hashes of inputs are kept by path, time, size and inode: stages share most of their code.
- The lock file is written as text, entry by entry. DVC parses and prints all of it for each stage.
- A running stage holds DVC's read-write lock. Methods that take it again are called without it.
- Entries of stages that are no longer in stages/dvc.yaml are dropped. DVC keeps them for ever.
"""

import logging
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, chdir, closing, contextmanager
from functools import partial
from inspect import unwrap
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
from dvc.utils.serialize import load_yaml  # type: ignore[import-untyped]

from pipeline.errors import UserError
from pipeline.run import outside_files
from pipeline.run.dvc_cache import drop_damaged, objects, save_run, sync_objects
from pipeline.run.dvc_errors import sentence, stage_errors
from pipeline.run.dvc_files import HEADER, entries, load_stages, no_collection
from pipeline.run.dvc_rwlock import write_whole_lists
from pipeline.run.dvc_text import lock_entry
from pipeline.run.file_stamps import file_stamps
from pipeline.run.interfaces import Task
from pipeline.run.local import uses_gpu
from pipeline.run.machine import demand
from pipeline.storage.durable_files import durable_file


class DvcGraph:
    """The stages of one dvc.yaml, or of its ``text``, as a `pipeline.run.interfaces.Graph`."""

    def __init__(
        self,
        root: Path,
        file: str = "stages/dvc.yaml",
        *,
        gpu_jobs: int = 1,
        text: str | None = None,
    ) -> None:
        write_whole_lists()
        self.gpu_jobs = gpu_jobs  # stages that share a GPU, where SMS_GPU_JOBS is not set
        for name in ("dvc", "dvc_data", "dvc_objects"):  # from this level on: no progress bars
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            with no_collection():
                self.repo = Repo(str(root))
                stages = load_stages(self.repo, root / file, text)
                graph = build_graph(stages)
        except DvcException as error:
            raise UserError(f"{file}: {sentence(error)}") from error
        self.repo.lock._friendly = False  # no progress bar while waiting
        order = plan_repro(graph, stages)
        self.stages = {stage.name: stage for stage in order}
        self.inputs: Mapping[str, Sequence[str]] = {
            stage.name: tuple(read.name for read in graph.successors(stage)) for stage in order
        }
        self.gpu: Collection[str] = {stage.name for stage in order if uses_gpu(_commands(stage))}
        self.cache = Path(self.repo.cache.local_cache_dir)
        self.lockfile = (root / file).with_suffix(".lock")
        # Called with a stage whose outputs are cached, before run cache and lock file name it.
        self.before_naming: Callable[[str], None] = lambda _: None
        self._texts: dict[str, str] = {}  # lock entries of stages kept or restored in this run
        self._in_file: tuple[Any, dict[str, str]] = (None, {})  # the lock file's stamps, entries
        self._held: dict[str, AbstractContextManager[None]] = {}  # locks of running stages
        self._reading: dict[str, str] = {}  # inputs -> the running stage that has locked them
        self._hashed: dict[str, tuple[Any, Any]] = {}  # path -> its stamps, and DVC's hash
        for stage in order:
            for dep in stage.deps:
                dep._build = partial(self._build, dep._build)

    def close(self) -> None:
        """Close DVC's databases."""
        self.repo.close()

    @contextmanager
    def bookkeeping(self) -> Iterator[bool]:
        """Hold the repository lock; gives False when another dvc command holds it for 3 s."""
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
        """Say whether the outputs are there, or came from the run cache.

        DVC's ``restore`` needs the hashes of inputs from the lock file. After ``save_deps`` it
        would take the old outputs for those of the new inputs.
        """
        stage = self.stages[name]
        with stage_errors(self.cache):
            if not self._changed(stage):
                return True
            if any(os.path.lexists(out.fs_path) for out in stage.outs):
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

    def up_to_date(self) -> dict[str, str]:
        """Return the hash of each output that is up to date, as are all stages it depends on.

        Raises:
            UserError: a file cannot be read.
        """
        hashes: dict[str, str] = {}
        for name, stage in self.stages.items():  # inputs come first
            try:
                if all(read in hashes for read in self.inputs[name]) and not self._changed(stage):
                    hashes[name] = stage.outs[0].hash_info.value
            except (DvcException, OSError) as error:
                raise UserError(sentence(error)) from error
        return hashes

    def begin(self, name: str) -> Task:
        """Hash the inputs, clear the outputs and return the task to run.

        Until ``keep`` or ``release``, DVC's read-write lock keeps other dvc commands from the
        inputs and outputs, as it does while DVC runs a stage.
        """
        stage = self.stages[name]
        with stage_errors(self.cache):
            # Paths that this driver reads already are in the lock; DVC would compare them again.
            reads = [dep.fs_path for dep in stage.deps if dep.fs_path not in self._reading]
            held = rwlock(
                self.repo.tmp_dir,
                self.repo.fs,
                " ".join(sys.argv),
                reads,
                [out.fs_path for out in stage.outs],
                self.repo.config["core"].get("hardlink_lock", False),
            )
            held.__enter__()
            self._held[name] = held
            self._reading |= dict.fromkeys(reads, name)
            try:
                stage.save_deps()
                unwrap(type(stage).remove_outs)(stage)
            except BaseException:
                self.release(name)
                raise
        return self._task(stage)

    def _task(self, stage: Any) -> Task:
        gpu = stage.name in self.gpu
        cpus, gpus = demand(gpu=gpu, gpu_jobs=self.gpu_jobs)
        return Task(
            commands=_commands(stage),
            folder=Path(stage.wdir),
            address=stage.addressing,
            gpu=gpu,
            inputs={self._path(dep): dep.hash_info.value for dep in stage.deps},
            outputs=tuple(map(self._path, stage.outs)),
            outside=outside_files.paths(stage),
            cpus=cpus,
            gpus=gpus,
        )

    def _path(self, file: Any) -> str:
        return os.path.relpath(str(file.fs_path), str(self.repo.root_dir))

    def keep(self, name: str) -> None:
        """Cache the outputs, and record them in the run cache with the inputs of the beginning.

        They are on the disk before the run cache and the lock file name them, as is all that
        ``before_naming`` writes: a stage that these name is never run again.
        """
        stage = self.stages[name]
        try:
            with stage_errors(self.cache):
                stage.save_outs()
                files = objects(self.repo.cache.local, stage.outs)
                drop_damaged(files)
                unwrap(type(stage).commit)(stage)
                sync_objects(files)
                self.before_naming(name)
                if all(out.use_cache or out.is_metric or out.is_plot for out in stage.outs):
                    save_run(self.repo.stage_cache, stage)
                self._record(stage)
        finally:
            self.release(name)

    def release(self, name: str) -> None:
        """Unlock the stage's inputs and outputs for other dvc commands."""
        with stage_errors(self.cache):
            self._held.pop(name).__exit__(None, None, None)
            self._reading = {path: by for path, by in self._reading.items() if by != name}

    def flush(self) -> None:
        """Write the lock file: this run's entries, and the old ones of stages that still exist.

        The order is that of a new lock file by DVC.
        """
        before = self._entries()
        texts = before | self._texts
        after = {name: texts[name] for name in self.stages if name in texts}
        if after == before:
            return
        if not after:
            self.lockfile.unlink()
            return
        with stage_errors(self.cache), durable_file(self.lockfile) as new:
            new.write_text(HEADER + "".join(after.values()), encoding="utf-8")
        self._in_file = file_stamps(str(self.lockfile)), after
        with self.repo.scm_context(quiet=True) as context:
            context.track_file(os.path.relpath(self.lockfile))

    def _entries(self) -> dict[str, str]:
        """Return the text of each stage's entry in the lock file, read only if it has changed."""
        if not self.lockfile.exists():
            return {}
        if (stamps := file_stamps(str(self.lockfile))) != self._in_file[0]:
            texts = entries(self.lockfile.read_text(encoding="utf-8"))
            if texts is None:
                stages = load_yaml(str(self.lockfile)).get("stages") or {}
                texts = {name: lock_entry({name: stage}) for name, stage in stages.items()}
            self._in_file = stamps, texts
        return self._in_file[1]

    def _record(self, stage: Any) -> None:
        self._texts[stage.name] = lock_entry(to_lockfile(stage))

    def _changed(self, stage: Any) -> bool:
        return (
            stage.changed_stage()
            or stage.is_callback
            or stage.always_changed
            or any(not self._same(dep) and dep.status() for dep in stage.deps)
            or any(out.status() for out in stage.outs)
        )

    def _same(self, dep: Any) -> bool:
        """Say whether an input is known to be equal to that of the lock file; DVC is slower."""
        stamps, built = self._hashed.get(dep.fs_path, (None, None))
        if stamps is None or not dep.hash_info or built[2].hash_info != dep.hash_info:
            return False
        try:
            return bool(file_stamps(dep.fs_path) == stamps)
        except OSError:
            return False

    def _build(self, build: Any, odb: Any, path: str, *rest: Any, **options: Any) -> Any:
        """Hash an input by ``build``, unless it is unchanged since the last time."""
        stamps = file_stamps(path)
        if path not in self._hashed or self._hashed[path][0] != stamps:
            self._hashed[path] = stamps, build(odb, path, *rest, **options)
        return self._hashed[path][1]


def up_to_date(root: Path, text: str | None = None) -> dict[str, str]:
    """Return the DVC hash of every artifact of ``root``/stages/dvc.yaml that is up to date.

    Where ``text`` is given, the stages are those of this text, and the file is not read.

    A stage is up to date where ``dvc status`` finds nothing changed (its command, inputs and
    output are those of the lock file), and where all stages that it reads are up to date. Files
    with known time, size and inode are not hashed again.

    Raises:
        UserError: a file cannot be read, or the graph is unsound.
    """
    root = root.resolve()
    with chdir(root), closing(DvcGraph(root, text=text)) as graph:
        return graph.up_to_date()


def _commands(stage: Any) -> tuple[str, ...]:
    return tuple(stage.cmd if isinstance(stage.cmd, list) else stage.cmd.splitlines())
