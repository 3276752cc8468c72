"""Measurements on a GPU, a command each; they print as they go, and leave files if interrupted.

    python3 -m benchmarks.card first       4 minutes: the tests on the card, its peak, the loop
    python3 -m benchmarks.card loop        the peak and the loop alone
    python3 -m benchmarks.card table5      the paper's CIFAR-10 table, one seed
    python3 -m benchmarks.card resnet20    80, 90 and 95 %, as many seeds as fit
    python3 -m benchmarks.card phase       seconds of one phase for m = 1, 3, 5, 10

Each uses the folder that `make bundle DATA=...` wrote (--bundle) and writes into --out what
`make intake` takes in. Settings by -S go over its own: a rehearsal without a GPU is

    python3 -m benchmarks.card table5 --data data/few -S pretrain.epochs=1 -S network.name=resnet8
"""

import argparse
import csv
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MEASURES = ROOT / "docs" / "data" / "card.csv"
# Seconds at most, whether by MPS, network, further arguments of benchmarks/loop.py; the most
# telling ones first. By MPS, a daemon of NVIDIA's driver, the processes on a GPU run at the same
# time instead of in turn.
LOOPS = (
    (90, True, "resnet18", "--ways graph+compile --batches 240 --rounds 2 --jobs 1 2 3"),
    (60, True, "resnet18", "--ways graph --batches 120 --jobs 1 2 3"),
    (60, False, "resnet20", "--ways obvious graph graph+compile --batches 120"),
    (60, True, "resnet20", "--ways graph --batches 200 --jobs 1 2 4 8"),
    (60, False, "wrn20", "--ways obvious graph --batches 40"),
    (60, False, "resnet18", "--ways obvious eager graph graph+fast --batches 120"),
)
# It prints "  graph  65000 images/s  ratio" and "  resnet20 graph, 2 at once:  90000 images/s".
SPEED = re.compile(r"^  (?:\S+ )?(\S+?)(?:, (\d+) at once:)? +([\d.]+) images/s", re.MULTILINE)
BASE = ("recipe=cifar10_resnet18", "+data.name=image_folder", "evaluate.corruptions=none",
        "methods=[sms,imp,imp_mx]", "merge=[uniform]", "pretrain.precision=bf16")  # fmt: skip
RESERVE = 20  # seconds that stopping, the report and packing may take
MINUTES = {"first": 4.0, "table5": 12.0}  # in all


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["first", "loop", "table5", "resnet20", "phase"])
    parser.add_argument(
        "--minutes", type=float, help="in all; default: 4 (first), 12 (table5), 9.5 (others)"
    )
    parser.add_argument("--bundle", type=Path, default=Path("dist/bundle"))
    parser.add_argument("--data", default="data/cifar10", help="the image folder, in the bundle")
    parser.add_argument("--out", type=Path, default=Path("back"))
    parser.add_argument("--seed", type=int, default=0, help="of table5")
    parser.add_argument("--seeds", type=int, default=10, help="at most, of resnet20")
    parser.add_argument("--loop", default="", help="further arguments of benchmarks/loop.py")
    parser.add_argument("-S", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    options.end = time.monotonic() + 60 * (options.minutes or MINUTES.get(options.what, 9.5))
    options.out, options.bundle = options.out.resolve(), options.bundle.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    {"first": first, "loop": loop, "table5": table5, "resnet20": resnet20, "phase": phase}[
        options.what
    ](options)


def left(options: argparse.Namespace) -> float:
    """Return the seconds that are left."""
    return float(options.end - time.monotonic())


def first(options: argparse.Namespace) -> None:
    """Run the tests that need a GPU, then measure the time of a step and the training loop."""
    tests = [str(path) for path in sorted(ROOT.glob("tests/test_*.py")) if _on_gpu(path)]
    short = ["network.name=resnet20", "pretrain.epochs=2", "retrain.epochs=1", "phases=1"]
    graph = _graph(options, "short", short, 0, 1.0)
    # Without the plugin that warns where tests run in parallel, here an error.
    pytest = [*_python(options), "-m", "pytest", "-q", "-n", "4", "-p", "no:benchmark"]
    pytest += ["--tb=short", "-m", "gpu", *tests]
    _together(options, {"first-tests": pytest, "first-graph": graph}, 100)
    (options.out / "short-results.tar.gz").unlink(missing_ok=True)
    loop(options, steps=("resnet20", "resnet18"))


def loop(options: argparse.Namespace, steps: tuple[str, ...] = ()) -> None:
    """Measure the card's peak, the kernels of a step of ``steps``, and the ways of LOOPS."""
    python = _python(options)
    said = _output([*python, "-m", "benchmarks.card_peak"], 60, options)
    if not said.strip():
        return
    facts = json.loads(said.strip().splitlines()[-1])
    peak = facts.pop("peak")
    flops = facts.pop("flops")
    facts["date"] = time.strftime("%Y-%m-%d", time.gmtime())
    _keep(options, "first", [{"measure": "peak", **peak, **facts}])
    device = "cpu" if facts["card"] == "CPU" else "cuda"
    for network in steps:
        words = [*python, "-m", "benchmarks.step_time", "--device", device, "--network", network]
        kinds = json.loads((_output(words, 30, options).splitlines() or ["{}"])[-1])
        line = {"measure": "step", "network": network, "way": "eager"} | facts
        _keep(options, "first", [line | {"kind": k, "microseconds": v} for k, v in kinds.items()])
    base = [*python, "-m", "benchmarks.loop", "--device", device, "--precision", "bf16"]
    base += ["--rounds", "3", "--loader-workers", str(min(14, max(0, (os.cpu_count() or 1) - 2)))]
    for seconds, shared, network, more in LOOPS:
        words = [*base, "--network", network, *more.split(), *options.loop.split()]
        with mps() if shared else nullcontext(not shared) as on:
            text = _output(words, seconds, options) if on else ""
        lines = []
        for way, jobs, speed in SPEED.findall(text):
            share = float(speed) * flops[network] / (1e12 * peak["tflops"] or math.inf)
            line = {"measure": "loop", "network": network, "way": way, "jobs": int(jobs or 1)}
            line |= {"mps": shared, "images_per_s": float(speed), "share_of_peak": share}
            lines.append(line | facts)
        _keep(options, "first", lines)


def _python(options: argparse.Namespace) -> list[str]:
    """Return the words that start this Python with the packages of the bundle."""
    return [sys.executable, str(options.bundle / "run"), "--python"]


@contextmanager
def mps() -> Iterator[bool]:
    """Run NVIDIA's Multi-Process Service for the processes started within; False without it."""
    folders = [*os.get_exec_path(), "/usr/local/nvidia/bin"]
    program = shutil.which("nvidia-cuda-mps-control", path=os.pathsep.join(folders))
    if not program:
        print("left out: there is no nvidia-cuda-mps-control", flush=True)
        yield False
        return
    with tempfile.TemporaryDirectory() as folder:
        names = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        os.environ |= names
        try:
            subprocess.run([program, "-d"], check=False)
            yield True
        finally:
            with suppress(subprocess.TimeoutExpired):
                subprocess.run([program], input="quit -t 1\n", text=True, check=False, timeout=20)
            for name in names:
                del os.environ[name]
            for log in Path(folder).glob("*.log"):
                print(log.name, log.read_text()[-300:], flush=True)


def _on_gpu(path: Path) -> bool:
    return "mark.gpu" in path.read_text()


def table5(options: argparse.Namespace) -> None:
    """Run Table 5's settings for one seed: 3 phases of 20 epochs to 98 %, m = 3."""
    with sharing(options, "resnet18", "graph+compile"):
        settings = [f"seed={options.seed}", "pretrain.compile=true"]
        _run(options, f"table5-s{options.seed}", settings, 60)


def resnet20(options: argparse.Namespace) -> None:
    """Run ResNet-20 at three sparsities, three seeds at a time, until the time is over."""
    with sharing(options, "resnet20", "graph"):
        for count in range(3, options.seeds + 3, 3):
            seeds = ",".join(map(str, range(min(count, options.seeds))))
            for target in (90, 95, 80):
                if left(options) < 2 * RESERVE:
                    return
                settings = [f"seeds=[{seeds}]", f"target_sparsity={target / 100}"]
                _run(options, f"resnet20-{target}", ["network.name=resnet20", *settings], 0)


@contextmanager
def sharing(options: argparse.Namespace, network: str, way: str) -> Iterator[None]:
    """Let as many stages share the card as was fastest, by MPS where that was faster.

    Measurements are those of --out/first.jsonl, or of this card in docs/data/; without any it is 3,
    by MPS.
    """
    speeds = {
        (int(float(line["jobs"])), str(line["mps"]) == "True"): float(line["images_per_s"])
        for line in _measured(options, network, way)
    }
    together = [key for key in speeds if key[0] > 1]  # otherwise nobody has tried
    jobs, shared = max(together, key=speeds.__getitem__, default=(3, True))
    print(f"{jobs} stages share the card{' by MPS' if shared else ''}", flush=True)
    os.environ["SMS_GPU_JOBS"] = str(jobs)
    with mps() if shared else nullcontext():
        yield


def _measured(options: argparse.Namespace, network: str, way: str) -> list[dict[str, Any]]:
    """Return the measurements of the loop on this card: of this folder, or the stored ones."""
    wanted = {"measure": "loop", "network": network, "way": way}
    if (options.out / "first.jsonl").exists():
        today = map(json.loads, (options.out / "first.jsonl").read_text().splitlines())
        if lines := [line for line in today if wanted.items() <= line.items()]:
            return lines
    if not MEASURES.exists():
        return []
    wanted["card"] = _card()
    with MEASURES.open(newline="") as file:
        return [line for line in csv.DictReader(file) if wanted.items() <= line.items()]


def _card() -> str:
    """Return the name of the first GPU, or "" without one."""
    if not shutil.which("nvidia-smi"):
        return ""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return said.partition("\n")[0].strip()


def phase(options: argparse.Namespace) -> None:
    """Time one phase of ResNet-20, 2 epochs, for several m: from the pruning to the soup."""
    short = ["network.name=resnet20", "pretrain.epochs=2", "retrain.epochs=2", "phases=1",
             "target_sparsity=0.9", "methods=[sms]"]  # fmt: skip
    with sharing(options, "resnet20", "graph"):
        for m in (10, 1, 5, 3):  # the most telling ones first
            if left(options) < 2 * RESERVE:
                return
            ended: dict[str, float] = {}
            # A seed of its own: otherwise the first candidates come from the cache.
            for line in _lines(options, f"phase-{m}", [*short, f"m={m}", f"seed={m}"], 0):
                for stage in (f"s{m}-p1-prune", f"s{m}-sms_uniform-p1"):
                    if re.search(rf"ran +{stage} ", line):
                        ended[stage] = time.monotonic()
            if len(ended) == 2:
                begun, end = sorted(ended.values())
                row: dict[str, Any] = {"measure": "phase", "network": "resnet20", "m": m}
                row["jobs"] = int(os.environ["SMS_GPU_JOBS"])
                row["seconds"] = round(end - begun, 1)
                _keep(options, "phase", [row | _facts(options, f"phase-{m}")])


def _run(options: argparse.Namespace, name: str, settings: list[str], megabytes: int) -> None:
    for _ in _lines(options, name, settings, megabytes):
        pass


def _lines(
    options: argparse.Namespace, name: str, settings: list[str], megabytes: int
) -> Iterator[str]:
    """Run the graph with ``settings`` through the bundle; give and print its lines as they come."""
    minutes = max(0.1, (left(options) - RESERVE) / 60)
    command = _graph(options, name, settings, megabytes, minutes)
    print(f"{name}: {minutes:.1f} minutes at most", flush=True)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        for line in run.stdout or ():
            print(line, end="", flush=True)
            yield line
    if run.returncode:
        sys.exit(f"{name}: exit status {run.returncode}, so nothing else is tried")


def _graph(
    options: argparse.Namespace, name: str, settings: list[str], megabytes: int, minutes: float
) -> list[str]:
    """Return the command that runs the graph with ``settings`` through the bundle."""
    whole = [*BASE, f"data.path={options.data}", *settings, *options.settings]
    words = [word for setting in whole for word in ("-S", setting)]
    command = [sys.executable, str(options.bundle / "run"), "--name", name, *words]
    command += ["--minutes", f"{minutes:.2f}", "--out", str(options.out)]
    return [*command, "--megabytes", str(megabytes)]


def _together(options: argparse.Namespace, commands: dict[str, list[str]], seconds: float) -> None:
    """Run ``commands`` at the same time, at most ``seconds`` long; show the end of their logs."""
    end = min(time.monotonic() + seconds, options.end)
    runs = {}
    for name, command in commands.items():
        with (options.out / f"{name}.log").open("w") as log:
            runs[name] = subprocess.Popen(
                command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
    for name, run in runs.items():
        try:
            run.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
            print("cut off:", name, flush=True)
        print(f"{name}: exit status {run.returncode}", flush=True)
        print((options.out / f"{name}.log").read_text()[-2500:], flush=True)


def _output(
    command: list[str], seconds: float, options: argparse.Namespace, log: Path | None = None
) -> str:
    """Return what ``command`` prints, at most ``seconds`` long; show it, and keep it in ``log``."""
    print("$", " ".join(command[3:]), flush=True)
    if left(options) < 5:
        print("left out: the time is over", flush=True)
        return ""
    log = log or options.out / "first.log"
    with log.open("a+") as file:
        begun = file.seek(0, os.SEEK_END)
        run = subprocess.Popen(
            command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            run.wait(min(seconds, left(options)))
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)  # with its workers, which hold the card
            run.wait()
            print("cut off: its time is over", flush=True)
        file.seek(begun)
        text = file.read()
    print(text, flush=True)
    return text


def _facts(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Return where a run was made, from what it packed."""
    import tarfile  # noqa: PLC0415

    with tarfile.open(options.out / f"{name}-results.tar.gz") as archive:
        file = archive.extractfile("run.json")
        run = json.load(file) if file else {}
    return {key: run[key] for key in ("card", "torch", "commit", "golden", "date")}


def _keep(options: argparse.Namespace, name: str, lines: list[dict[str, Any]]) -> None:
    with (options.out / f"{name}.jsonl").open("a") as file:
        file.writelines(json.dumps(line, sort_keys=True) + "\n" for line in lines)


if __name__ == "__main__":
    main()
