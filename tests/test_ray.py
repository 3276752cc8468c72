"""The Ray engine against the local one and plain DVC, on one cluster of two logical CPUs."""

import fcntl
import io
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from pipeline.errors import UserError
from pipeline.run import ray_cluster
from pipeline.run.dvc_graph import DvcGraph
from pipeline.run.engines import choose
from pipeline.run.interfaces import Task
from pipeline.run.local import LocalEngine
from pipeline.run.machine import demand
from pipeline.run.ray_engine import Lease, RayEngine
from pipeline.run.ray_files import pack
from pipeline.run.ray_hosts import Hosts, mismatch
from pipeline.run.ray_node import versions
from pipeline.run.ray_objects import Objects
from tests.test_run import Notes, diamond, modules
from tests.toy import Toy, alive, alone, until

pytestmark = pytest.mark.filterwarnings(
    "ignore:_NoneStep:DeprecationWarning",  # DVC's own
)
MODULE = """
import random, sys
from pathlib import Path
print("told")
random.seed(7)
out = Path(sys.argv[1])
out.mkdir(parents=True)
out.joinpath("facts").write_text(f"{sys.argv[1:]} {random.random()}")
"""
TOKEN = secrets.token_hex(32)  # of all clusters of this process, in which Ray reads one once
SLEEPER = "(sleep 60 & echo $! > pid; wait)"


def test_unknown_engine_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMS_ENGINE", "slurm")
    with pytest.raises(UserError, match=r"^SMS_ENGINE is 'slurm', but must be local or ray: "):
        choose(tmp_path, 1, 1)
    monkeypatch.setenv("SMS_ENGINE", "local")
    assert isinstance(choose(tmp_path, 1, 1), LocalEngine)


def test_missing_ray_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMS_ENGINE", "ray")
    monkeypatch.setitem(sys.modules, "ray", None)
    for address in ("", "127.0.0.1:6379"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        before = dict(os.environ)
        with pytest.raises(UserError, match=r"pip install -e '\.\[ray\]'$"):
            choose(tmp_path, 1, 1)
        assert dict(os.environ) == before


def test_other_versions_are_one_sentence() -> None:
    here = versions()
    assert here["Python"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert mismatch("n1", here, here | {"sees": False}) is None
    for package in ("Python", "PyTorch"):
        other = here | {package: "1.0", "sees": True}
        assert mismatch("n1", here, other) == (
            f"node n1 of the Ray cluster has {package} 1.0, but the driver has {here[package]}: "
            "results depend on it; install the same version on all nodes"
        )


def test_code_for_other_nodes_has_every_file_of_the_package(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    ray = SimpleNamespace(put=lambda data: data)
    with tarfile.open(fileobj=io.BytesIO(Objects(ray, tmp_path).code(root))) as archive:
        sent = set(archive.getnames())
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["pipeline"]
    package = root / "pipeline"
    files = [*package.rglob("*.py"), *(each for glob in patterns for each in package.glob(glob))]
    assert {str(file.relative_to(root)) for file in files} <= sent


def test_outputs_of_a_node_replace_those_of_a_lost_run(tmp_path: Path) -> None:
    (tmp_path / "node" / "artifacts" / "net").mkdir(parents=True)
    (tmp_path / "node" / "artifacts" / "net" / "value").write_text("whole")
    archive = pack(tmp_path / "node", ["artifacts/net"])
    (tmp_path / ".dvc" / "tmp" / "sms").mkdir(parents=True)
    (tmp_path / "artifacts" / "net").mkdir(parents=True)
    (tmp_path / "artifacts" / "net" / "lost").touch()
    assert Objects(SimpleNamespace(), tmp_path).keep(archive, ["artifacts/net"]) == 0
    kept = {file.name: file.read_text() for file in (tmp_path / "artifacts" / "net").iterdir()}
    assert kept == {"value": "whole"}


def test_objects_leave_out_what_all_nodes_see(tmp_path: Path) -> None:
    """An input outside the folder counts as seen under an absolute path that `outside` names."""
    root, data = tmp_path / "root", tmp_path / "data"
    root.mkdir()
    for file in (root / "code.py", data):
        file.touch()
    objects = Objects(SimpleNamespace(put=lambda packed: packed), root)
    inputs = {"code.py": "1", "../data": "2"}
    assert objects.of(inputs) is None
    assert objects.of(inputs, ["../data"]) is None
    sent = objects.of(inputs, [str(data)])
    assert sent == objects.of({"code.py": "1"})
    assert sent
    assert len(sent) == 1


def test_inputs_of_a_stage_for_the_drivers_node_are_not_sent(tmp_path: Path) -> None:
    hosts = object.__new__(Hosts)
    hosts.objects = Objects(SimpleNamespace(put=lambda packed: packed), tmp_path)
    hosts.actors, hosts.shared = {"a": None, "b": None}, False
    hosts.see = lambda paths: not paths  # type: ignore[method-assign]
    (tmp_path / "data").touch()
    task = Task((), tmp_path, "", gpu=False, inputs={"data": "1"}, outside=("data",))
    assert hosts.portable(task) is None
    assert hosts.objects.sent == 0
    assert hosts.portable(replace(task, outside=()))
    assert hosts.objects.sent > 0


def test_a_node_that_has_gone_is_not_asked_for_files(tmp_path: Path) -> None:
    def get(reply: object) -> object:
        if isinstance(reply, type):
            raise reply
        return reply

    class RayError(Exception): ...

    class RayTaskError(RayError): ...

    hosts = object.__new__(Hosts)
    errors = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)
    hosts.root, hosts.ray = tmp_path, SimpleNamespace(get=get, exceptions=errors)
    for answer in (True, False, RayTaskError):
        hosts.actors = {
            node: SimpleNamespace(sees=SimpleNamespace(remote=lambda *_, a=reply: a))
            for node, reply in {"a": True, "b": RayError, "c": answer}.items()
        }
        assert hosts.see(["data"]) is (answer is True)
        assert list(hosts.actors) == ["a", "c"]


def test_lost_stage_goes_to_another_node(tmp_path: Path) -> None:
    engine = object.__new__(RayEngine)
    engine.hosts = SimpleNamespace(  # type: ignore[assignment]
        actors=dict.fromkeys("abc"), on=lambda node, soft: (node, soft)
    )
    lease, busy = Lease(Task((), tmp_path, "", gpu=False)), Lease(Task((), tmp_path, "", gpu=False))
    engine.tasks = {"lost": lease, "busy": busy}
    assert engine._place(lease) == "SPREAD"
    lease.lost, busy.node = {"a"}, "b"
    assert engine._place(lease) == ("c", True)
    lease.lost = set("abc")
    assert engine._place(lease) == "SPREAD"


@pytest.mark.parametrize(("first", "slots"), [(0, 6), (1, 3)])
def test_gpus_that_join_count_where_the_run_began_with_one(first: int, slots: int) -> None:
    """A run that began on CPUs goes on there, also on the CPUs of a new node that has GPUs."""
    alive = {"Alive": True, "NodeManagerHostname": "n"}
    nodes = [{"NodeID": "a", "Resources": {"CPU": 2, "GPU": first}} | alive]
    hosts = object.__new__(Hosts)
    hosts.ray = SimpleNamespace(nodes=lambda: nodes)
    hosts.needs, hosts.names, hosts.actors = {True: (1, 1)}, {}, {}
    hosts._answers = lambda: True  # type: ignore[method-assign]
    hosts._start = lambda new: hosts.actors.update(  # type: ignore[method-assign]
        dict.fromkeys(new)
    )
    hosts.refresh()
    hosts.with_gpus = any(node["GPU"] for node in hosts.resources.values())
    assert hosts.slots(gpu=True) == (first or 2)
    nodes.append({"NodeID": "b", "Resources": {"CPU": 4, "GPU": 2}} | alive)
    hosts.refresh()
    assert hosts.slots(gpu=True) == slots


@pytest.mark.parametrize("named", [True, False])
def test_cluster_that_is_gone_is_one_sentence_after_a_while(named: bool) -> None:
    """A lost link of 20 s is not the end; Ray itself would end the process after a minute."""
    hosts = object.__new__(Hosts)
    hosts.cluster = SimpleNamespace(named=named)  # type: ignore[assignment]
    hosts.opened, hosts.gone, long = True, False, 60 if named else 6
    with socket.create_server(("127.0.0.1", 0)) as server:
        hosts.address, hosts.answered = f"127.0.0.1:{server.getsockname()[1]}", 0.0
        assert hosts._answers()
        assert hosts.answered > time.monotonic() - 5
    hosts.answered = time.monotonic() - (20 if named else 2)
    assert not hosts._answers()
    assert not hosts.gone
    hosts.answered = time.monotonic() - long
    with pytest.raises(
        UserError, match=r"^the Ray cluster 127.*does not answer any more \(.*kept;"
    ):
        hosts._answers()
    assert hosts.gone


def test_ray_that_was_killed_here_is_one_sentence(tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def wait(*_: object, **__: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    engine, hosts = object.__new__(RayEngine), object.__new__(Hosts)
    engine.ray = SimpleNamespace(wait=wait, exceptions=SimpleNamespace(RaySystemError=KilledError))
    engine.hosts, hosts.address = hosts, "h:1"
    with pytest.raises(UserError, match=r"^the Ray cluster h:1 does not answer .*Broken pipe"):
        engine._ready([object()], 0)
    assert hosts.gone


def test_cluster_of_other_versions_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: object) -> None:
        raise RuntimeError("Version mismatch: The cluster was started with:\n Python: 3.9.1")

    cluster = object.__new__(ray_cluster.Cluster)
    cluster.ray = SimpleNamespace(init=init)
    with pytest.raises(
        UserError, match=r"^the Ray cluster h:1 cannot be joined \(Version mismatch: The"
    ) as e:
        cluster._connect("h:1")
    assert "\n" not in str(e.value)
    assert "Python: 3.9.1): the driver must run on a node of it, with the cluster's" in str(e.value)


def test_keeper_that_is_still_starting_is_waited_for(tmp_path: Path) -> None:
    with (tmp_path / "keeper").open("a+") as keeper:
        fcntl.flock(keeper, fcntl.LOCK_EX)
        timer = threading.Timer(0.3, lambda: (keeper.write('{"address": "a:1"}'), keeper.flush()))
        timer.start()
        assert ray_cluster.running(tmp_path) == "a:1"
        timer.join()
    assert ray_cluster.running(tmp_path) is None


def test_what_a_stage_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPUs are processes times threads; GPUs are whole for several, and else a share of one."""
    for variable in ("SMS_GPUS_PER_STAGE", "SMS_GPU_JOBS", "SMS_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    assert demand(gpu=False) == (1, 0)
    assert demand(gpu=True, gpu_jobs=4) == (1, 0.25)
    monkeypatch.setenv("SMS_GPU_JOBS", "2")
    assert demand(gpu=True, gpu_jobs=4) == (1, 0.5)
    monkeypatch.setenv("SMS_GPUS_PER_STAGE", "8")
    monkeypatch.setenv("SMS_THREADS", "3")
    assert demand(gpu=True, gpu_jobs=4) == (24, 8)
    assert demand(gpu=False) == (3, 0)


def test_a_task_says_what_an_engine_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone(monkeypatch, tmp_path)
    toy = Toy(tmp_path / "toy")
    toy.add("zero")
    toy.execute()
    toy.add("one", "zero", meta={"outside": ["data/images"]})
    graph = DvcGraph(toy.root, gpu_jobs=4)
    with graph.bookkeeping():
        task = graph.begin("one")
        graph.release("one")
    entry = yaml.safe_load(toy.lock())["stages"]["zero"]
    graph.close()
    assert task.inputs == {
        "code.txt": entry["deps"][0]["md5"],
        "artifacts/zero": entry["outs"][0]["md5"],
    }
    assert task.outputs == ("artifacts/one",)
    assert task.outside == ("data/images",)
    assert (task.gpu, task.cpus, task.gpus) == (True, 1, 0.25)


def processes(folder: str) -> dict[int, str]:
    """Return the Ray processes of the cluster in ``folder``, and all below them."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = place.joinpath("cmdline").read_bytes()
            environment = place.joinpath("environ").read_bytes()
        except OSError:
            continue
        if f"TMPDIR={folder}".encode() in environment and int(place.name) != os.getpid():
            found[int(place.name)] = words.replace(b"\0", b" ").decode(errors="replace").strip()
    return {pid: words for pid, words in found.items() if words and alive(pid)}


@contextmanager
def short_folder() -> Iterator[str]:
    """Give a folder for temporary files with a short name, for sockets, and leave no process."""
    folder = tempfile.mkdtemp(prefix="sms", dir="/tmp")
    before = os.environ.get("TMPDIR"), tempfile.tempdir
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    token = ray_cluster.private_folder() / "token"
    token.touch(mode=0o600)
    token.write_text(TOKEN)
    try:
        yield folder
        until(lambda: not processes(folder), 30)
    finally:
        for pid in processes(folder):
            os.kill(pid, signal.SIGKILL)
        tempfile.tempdir = before[1]
        del os.environ["TMPDIR"]
        if before[0] is not None:
            os.environ["TMPDIR"] = before[0]
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of a cluster with two CPUs, which drivers without RAY_ADDRESS join."""
    tmp_path_factory.getbasetemp()  # outside the short folder, which is removed at the end
    with short_folder(), ExitStack() as stack:
        folder = ray_cluster.private_folder()
        address, lock = ray_cluster.join(folder, 2, 0)
        stack.enter_context(lock)
        yield address
        assert ray_cluster.running(folder) == address, "all drivers joined it"


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> Callable[[str], Toy]:
    alone(monkeypatch, tmp_path)
    monkeypatch.setenv("SMS_ENGINE", "ray")
    return lambda name: Toy(tmp_path / name)


@pytest.fixture
def toy(make: Callable[[str], Toy]) -> Toy:
    return make("toy")


@pytest.fixture
def named(make: Callable[[str], Toy], monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Name the cluster, as if it were another one."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    for name, value in ray_cluster.authentication(ray_cluster.private_folder()).items():
        monkeypatch.setenv(name, value)


def fill(toy: Toy) -> None:
    modules(toy)
    (toy.root / "stages" / "toy.py").write_text(MODULE)
    toy.stages["m"]["deps"] = ["stages/__init__.py", "stages/toy.py"]
    diamond(toy)
    toy.add("long", "join", value="a 'word' " * 12)
    lines = r"""printf '{"epoch": 1}\n{"epoch": 2}\n'"""
    toy.add("told", run=f"{lines} >> $(printenv SMS_EVENTS || echo /dev/null)")


@pytest.mark.extras
def test_same_lock_events_and_environment_as_without_ray(
    make: Callable[[str], Toy], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, local, plain = make("ours"), make("local"), make("plain")
    heard = []
    before = dict(os.environ), [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    for toy in (ours, local, plain):
        fill(toy)
        toy.add("shell", run="env | sort | grep -v -e '^DVC_ROOT' -e '^_=' -e PWD > seen")
    for toy in (ours, local):
        notes = Notes()
        assert set(toy.execute(listeners=[notes]).ran) == set(toy.stages)
        heard.append(sorted(notes.heard, key=repr))
        monkeypatch.setenv("SMS_ENGINE", "local")
    monkeypatch.setenv("SMS_ENGINE", "ray")
    monkeypatch.setenv("SMS_PYTHON", sys.executable)
    plain.dvc("reproduce")
    assert ours.lock() == plain.lock()
    assert heard[0] == heard[1]
    told = [note[2] for note in heard[0] if note[:2] == ("event", "told")]
    assert told == [{"epoch": 1}, {"epoch": 2}]
    seen = [
        (toy.root / "seen").read_text().replace(str(toy.root), "").replace("=ray", "=local")
        for toy in (ours, local)
    ]
    assert seen[0] == seen[1]
    logs = [(toy.root / ".dvc/tmp/sms/logs/m.log").read_text() for toy in (ours, local)]
    assert logs[0] == logs[1] == "told\n"
    monkeypatch.delenv("SMS_PYTHON")
    assert before == (
        dict(os.environ),
        [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)],
    )


@pytest.mark.extras
def test_failure_leaves_the_others_alone(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    diamond(toy)
    toy.add("left", "zero", run="echo the reason; exit 3")
    summary = toy.execute()
    assert (summary.failed, summary.skipped) == (("left",), ("join",))
    assert set(summary.ran) == {"zero", "right", "apart"}
    shown = capsys.readouterr().err
    assert "left failed: exit status 3\n    the reason\n    (.dvc/tmp/sms/logs/left.log)" in shown


@pytest.mark.extras
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_driver_keeps_what_is_done_and_leaves_no_process(
    toy: Toy, number: signal.Signals
) -> None:
    toy.add("done")
    toy.add("slow", "done", run=SLEEPER)
    toy.add("later", "slow")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with toy.driver() as driver:
            until((toy.root / "pid").exists, 180)
            until((toy.root / "pid").read_text)
            sleeper = int((toy.root / "pid").read_text())
            driver.send_signal(number)
            _, shown = driver.communicate(timeout=180)
    finally:
        signal.signal(signal.SIGINT, before)
    until(lambda: not alive(sleeper), 15)
    if number == signal.SIGINT:
        assert driver.returncode == 130
        assert "1 stages are done and kept, 2 are left" in shown
        assert yaml.safe_load(toy.lock())["stages"].keys() == {"done"}
    assert toy.ran() == ["done", "slow"]
    toy.add("slow", "done")
    toy.execute()
    assert toy.ran() == ["later", "slow"]


@pytest.mark.extras
def test_two_drivers_share_the_cpus(make: Callable[[str], Toy]) -> None:
    """Of two drivers with two jobs each, on two CPUs, no more than two stages run at once."""
    stamp = f"{sys.executable} -c 'import time; print(time.time())' >> "
    toys = [make("one"), make("two")]
    for toy in toys:
        for name in "abcd":
            toy.add(name, run=f"{stamp} {name}.time && sleep 0.8 && {stamp} {name}.time")
    with ExitStack() as stack:
        drivers = [stack.enter_context(toy.driver()) for toy in toys]
        for driver in drivers:
            assert driver.wait(180) == 0, driver.stderr and driver.stderr.read()
    spans = [
        [float(text) for text in file.read_text().split()]
        for toy in toys
        for file in toy.root.glob("*.time")
    ]
    assert len(spans) == 8
    for begin, _ in spans:
        assert sum(other[0] <= begin < other[1] for other in spans) <= 2


@pytest.mark.extras
def test_stage_of_a_lost_actor_runs_again(toy: Toy, address: str) -> None:
    folder = str(Path(tempfile.gettempdir()))
    toy.add("slow", run=f"(test -e pid || {SLEEPER})")
    with toy.driver() as driver:
        until((toy.root / "pid").exists, 180)
        until((toy.root / "pid").read_text)
        (actor,) = (pid for pid, words in processes(folder).items() if "ray::Host" in words)
        os.kill(actor, signal.SIGKILL)
        assert driver.wait(180) == 0, driver.stderr and driver.stderr.read()
    assert not alive(int((toy.root / "pid").read_text()))
    assert toy.ran() == ["slow", "slow"]


@pytest.mark.extras
def test_stage_whose_process_is_killed_runs_again_up_to_a_limit(
    toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.add("once", run="{ test -e hit || { touch hit; kill -9 $$; }; }")
    toy.add("always", run="kill -9 $$")
    summary = toy.execute()
    assert (summary.ran, summary.failed) == (("once",), ("always",))
    assert toy.ran() == ["always"] * 3 + ["once"] * 2
    shown = capsys.readouterr().err
    assert f"lost 3 times, at last on node {socket.gethostname()}: killed by signal 9\n" in shown


@pytest.mark.extras
def test_stage_that_is_always_lost_fails_with_the_node(
    toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.add("bad", run="kill -9 $(cat /proc/$(ps -o ppid= $PPID | tr -d ' ')/stat | cut -d' ' -f4)")
    toy.add("good")
    summary = toy.execute()
    assert (summary.failed, summary.ran) == (("bad",), ("good",))
    shown = capsys.readouterr().err
    assert "bad failed: killed by signal 9" in shown
    assert f"lost 3 times, at last on node {socket.gethostname()}: " in shown


@pytest.mark.extras
@pytest.mark.usefixtures("named")
def test_cluster_without_the_gpus_is_one_sentence(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.add("a")
    monkeypatch.setenv("SMS_GPUS_PER_STAGE", "2")
    with pytest.raises(UserError, match="must have 2 GPUs, but the largest has 0: unset"):
        toy.execute()
    monkeypatch.delenv("SMS_GPUS_PER_STAGE")
    monkeypatch.setenv("SMS_THREADS", "3")
    with pytest.raises(UserError, match=r"needs 3 CPUs .*, but no node"):
        toy.execute()
    assert toy.ran() == []
    monkeypatch.delenv("SMS_THREADS")
    assert toy.execute(jobs=None).ran == ("a",)


@pytest.mark.extras
@pytest.mark.parametrize("wrong", ["closed", "silent", "nonsense", "other token"])
def test_wrong_address_is_one_sentence(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, wrong: str, address: str
) -> None:
    toy.add("a")
    monkeypatch.setattr(ray_cluster, "REACHED", 4)
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        if wrong == "closed":
            server.close()
        if wrong == "other token":
            monkeypatch.setattr(ray_cluster, "REACHED", 15)
            place = address
            for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
                monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("RAY_ADDRESS", "nowhere" if wrong == "nonsense" else place)
        begun = time.monotonic()
        with pytest.raises(UserError, match=r"^RAY_ADDRESS is '?(127|192|nowhere)") as error:
            toy.execute()
    assert "\n" not in str(error.value)
    assert time.monotonic() - begun < 20
    assert toy.ran() == []


@contextmanager
def another_node(address: str, flags: str, *before: str, **more: str) -> Iterator[None]:
    """Add a node to the cluster; ``before`` is the command that starts it, in ``more``."""
    words = f"-m ray.scripts.scripts start --address {address} {flags} --block".split()
    token = ray_cluster.authentication(ray_cluster.private_folder())
    environment = os.environ | token | ray_cluster.QUIET | more
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    with subprocess.Popen(
        [*before, sys.executable, *words, "--object-store-memory", "100000000"],
        cwd="/",
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as node:
        try:
            yield
        finally:
            node.terminate()


def blind_node(
    address: str, *hidden: Path, flags: str = "--num-cpus 1 --num-gpus 0", **more: str
) -> AbstractContextManager[None]:
    """Add a node with one CPU, on which the folders ``hidden`` are empty disks of 16 MB."""
    mounts = " && ".join(f"mount -t tmpfs -o size=16m none {folder}" for folder in hidden)
    hide = f'{mounts} && exec "$@"'
    before = ["unshare", "--mount", "sh", "-c", hide, "sh"]
    return another_node(address, flags, *before, **more)


@pytest.mark.extras
def test_ray_gives_gpus_and_parts_of_them(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """On a node with two logical GPUs; stages without GPU work see none."""
    modules(toy)
    toy.stages.clear()
    for name in "abcd":
        toy.add(name, run="echo gpu $CUDA_VISIBLE_DEVICES >> seen; sleep 1")
    (toy.root / "stages" / "prune.py").write_text(
        "import os; from pathlib import Path; Path('artifacts/cpu').mkdir(parents=True)\n"
        "Path('artifacts/cpu/devices').write_text(os.environ['CUDA_VISIBLE_DEVICES'])\n"
    )
    toy.stages["cpu"] = {"cmd": "stages/run prune", "wdir": "..", "outs": ["artifacts/cpu"]}
    toy.write()
    monkeypatch.setenv("SMS_GPU_JOBS", "2")
    with another_node(address, "--num-cpus 4 --num-gpus 2"):
        joined(toy)
        engine = RayEngine(toy.root, 8)
        assert engine.hosts.slots(gpu=True) == 4
        assert set(toy.execute(engine=engine).ran) == {*"abcd", "cpu"}
        seen = sorted((toy.root / "seen").read_text().split("\n")[:-1])
        assert seen == ["gpu 0", "gpu 0", "gpu 1", "gpu 1"], "two on each at once"
        assert (toy.root / "artifacts" / "cpu" / "devices").read_text() == ""
        monkeypatch.setenv("SMS_GPUS_PER_STAGE", "2")
        toy.stages.clear()
        toy.add("both", run="echo $CUDA_VISIBLE_DEVICES > seen")
        assert toy.execute(engine=RayEngine(toy.root, 8)).ran == ("both",)
        assert sorted((toy.root / "seen").read_text().strip().split(",")) == ["0", "1"]


def joined(toy: Toy) -> None:
    """Wait until the cluster has a second node."""
    engine = RayEngine(toy.root, 1)
    until(lambda: engine.hosts.refresh() or len(engine.hosts.actors) == 2, 180)
    engine.stop(1)


def need_mounts() -> None:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("mount namespaces are not permitted")


@pytest.mark.extras
def test_stages_leave_a_node_whose_disk_is_full(toy: Toy, address: str, tmp_path: Path) -> None:
    """The driver's disk has room; the other node's has not, and counts neither as it nor as bad."""
    need_mounts()
    disk = tmp_path / "disk"
    disk.mkdir()
    for name in "abcdef":
        write = f"head -c 30000000 /dev/zero > {name} && rm {name} || exit 28"
        toy.add(name, run=f"(pwd >> {tmp_path}/places; sleep 1; {write})")
    with blind_node(address, toy.root, disk, TMPDIR=str(disk)):
        joined(toy)
        summary = toy.execute(engine=RayEngine(toy.root, 3))
    places = (tmp_path / "places").read_text().split()
    assert sorted(summary.ran) == [*"abcdef"]
    assert any(place.startswith(str(disk)) for place in places), "some were there"
    assert places.count(str(toy.root)) == 6, "all ended here"


@pytest.mark.extras
def test_node_with_another_torch_is_one_sentence(toy: Toy, address: str, tmp_path: Path) -> None:
    toy.add("a")
    (tmp_path / "other" / "torch").mkdir(parents=True)
    (tmp_path / "other" / "torch" / "__init__.py").touch()
    (tmp_path / "other" / "torch" / "version.py").write_text("__version__ = '1.0'")
    sentence = rf"^node {socket.gethostname()} of the Ray cluster has PyTorch 1\.0, but the driver"
    with another_node(address, "--num-cpus 1", PYTHONPATH=str(tmp_path / "other")):
        until(lambda: re.match(sentence, refusal(toy)), 180)
    assert toy.ran() == []
    until(lambda: not refusal(toy), 60)


def refusal(toy: Toy) -> str:
    """Return the sentence with which the engine refuses the cluster, "" if it takes it."""
    try:
        RayEngine(toy.root, 1).stop(1)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.extras
def test_nodes_that_do_not_see_the_folder(
    make: Callable[[str], Toy], monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """Inputs go there as objects, each once, and outputs, events and logs come back."""
    need_mounts()
    ours, plain = make("ours"), make("plain")
    for toy in (ours, plain):
        fill(toy)
        for name in "abcdef":
            toy.add(name, "join", run="pwd; sleep 1")
        toy.add("raw", run="pwd; cat raw/file", meta={"outside": ["raw"]})
        (toy.root / "raw").mkdir()
        (toy.root / "raw" / "file").touch()
    with blind_node(address, ours.root):
        joined(ours)
        engine = RayEngine(ours.root, 3)
        put: list[int] = []
        store = engine.ray.put
        monkeypatch.setattr(engine.ray, "put", lambda data: put.append(len(data)) or store(data))
        notes = Notes()
        summary = ours.execute(engine=engine, listeners=[notes])
    assert set(summary.ran) == set(ours.stages)
    monkeypatch.setenv("SMS_PYTHON", sys.executable)
    plain.dvc("reproduce")
    assert ours.lock() == plain.lock()
    logs = ours.root / ".dvc" / "tmp" / "sms" / "logs"
    places = {n: (logs / f"{n}.log").read_text().splitlines()[0] for n in [*"abcdef", "raw"]}
    assert places["raw"] == str(ours.root), "data outside the graph is on the driver's node"
    assert engine.hosts.objects.received > 0, "the other node ran some"
    told = [note[2] for note in notes.heard if note[:2] == ("event", "told")]
    assert told == [{"epoch": 1}, {"epoch": 2}]
    read = [set(stage["deps"]) for stage in ours.stages.values()]
    artifacts = {path for paths in read for path in paths if path.startswith("artifacts/")}
    code = {frozenset(paths - artifacts) for paths in read}
    assert len(put) == len(artifacts) + len(code), "each artifact and version of code once"
    assert not list(Path(tempfile.gettempdir()).glob("sms-node-*/*")), "the node is clean"


@pytest.mark.extras
def test_cluster_of_this_machine_ends_with_its_last_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone(monkeypatch, tmp_path)
    monkeypatch.setenv("SMS_ENGINE", "ray")
    first, second = Toy(tmp_path / "first"), Toy(tmp_path / "second")
    first.add("slow", run="touch begun && sleep 60")
    second.add("quick")
    with short_folder() as folder:
        with first.driver() as driver:
            until((first.root / "begun").exists, 180)
            address = ray_cluster.running(ray_cluster.private_folder())
            with second.driver() as other:
                assert other.wait(180) == 0, other.stderr and other.stderr.read()
            assert second.ran() == ["quick"]
            assert ray_cluster.running(ray_cluster.private_folder()) == address
            driver.kill()
            driver.wait()
        until(lambda: not processes(folder), 90)
