#!/usr/bin/env python3
"""Runs the graph on this machine, without a network, and packs the results into --out.

    python3 run --minutes 8 -S recipe=digits -S m=3

It installs the bundle's wheels into the folder site of the bundle, unpacks the data, sets
params.yaml as `dvc exp run -S` does, and runs `dvc repro`. Nothing is compiled, and nothing is
written outside the bundle. After --minutes it stops as after ^C: finished stages are kept, reported
and packed. `run --python ...` runs this Python with the bundle's packages.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

# Packages that the machine must have; the bundle has all others.
EXPECTED = (
    "matplotlib", "numpy", "pandas", "PIL", "scipy", "skimage", "sklearn", "torch", "torchvision"
)  # fmt: skip
HERE = Path(__file__).resolve().parent


def say(sentence: str) -> None:
    """Print ``sentence`` at once."""
    sys.stdout.write(sentence + "\n")
    sys.stdout.flush()


def fail(sentence: str) -> None:
    """Exit with ``sentence``."""
    sys.stderr.write(f"error: {sentence}\n")
    sys.exit(2)


def install() -> Path:
    """Install the wheels once into the folder ``site`` and return it."""
    site = HERE / "site"
    wheels = sorted((HERE / "wheels").glob("*.whl"))
    if site.is_dir() or not wheels:
        return site
    say(f"installing {len(wheels)} wheels")
    new = HERE / "site.new"
    shutil.rmtree(new, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
    options = ["--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--target", str(new)]
    environment = os.environ | {"PIP_CONFIG_FILE": os.devnull, "PIP_ROOT_USER_ACTION": "ignore"}
    done = subprocess.run(
        [*pip, "install", *options, *map(str, wheels)], env=environment, check=False
    )
    if done.returncode:
        version = ".".join(map(str, sys.version_info[:2]))
        fail(
            f"pip cannot install the wheels into this Python {version} (see above): make the "
            f"bundle with PYTHON_VERSION={version} and the PLATFORM of this machine"
        )
    new.rename(site)
    return site


def unpack() -> None:
    """Unpack the archives of the folder ``data`` into the project's, each once."""
    for archive in sorted((HERE / "data").glob("*")):
        stamp = HERE / "project" / "data" / f".{archive.name}.unpacked"
        if not stamp.exists():
            say(f"unpacking {archive.name}")
            stamp.parent.mkdir(exist_ok=True)
            shutil.unpack_archive(archive, stamp.parent, filter="data")
            stamp.touch()


def main() -> None:
    """Install, unpack, and start `pipeline.bundle.drive`."""
    if sys.version_info < (3, 11, 4):  # which knows the filter of archives
        fail(f"{sys.executable} is Python {sys.version.split()[0]}, and 3.11.4 or newer is needed")
    with (HERE / ".install.lock").open("w") as lock:  # of two runs at once the second one waits
        fcntl.flock(lock, fcntl.LOCK_EX)
        site = install()
        unpack()
    sys.path.insert(0, str(site))
    absent = [name for name in EXPECTED if find_spec(name) is None]
    if absent:
        fail(
            f"{sys.executable} lacks {', '.join(absent)}: use a Python that has PyTorch and these, "
            "or make the bundle with WITH='PACKAGE ...'"
        )
    paths = [str(site), str(HERE / "project"), os.environ.get("PYTHONPATH", "")]
    os.environ |= {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONUNBUFFERED": "1",
        "SMS_BUNDLE": str(HERE),
    }
    words = [sys.executable, "-m", "pipeline.bundle.drive", *sys.argv[1:]]
    if sys.argv[1:2] == ["--python"]:  # any command, with the bundle's packages
        words = [sys.executable, *sys.argv[2:]]
    os.execv(sys.executable, words)  # noqa: S606


if __name__ == "__main__":
    main()
