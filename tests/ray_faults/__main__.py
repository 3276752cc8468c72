"""A campaign of faults on two Ray nodes of this machine.

    python -m tests.ray_faults --seed 0 --trials 33    # trials that the file has are left out
    python -m tests.ray_faults --seed 0 --only 7       # one trial again, without a file

Each trial runs a small experiment with ``dvc repro`` on a cluster of two nodes, and lets one fault
happen while networks train. At the end the lock file must be that of plain DVC, no stage that ended
has run again, and no process is left. Folders of trials with another end stay, with their logs. The
cluster stays from trial to trial; what a fault has ended of it is started again.
"""

import argparse
import csv
import sys
import tempfile
import time
from pathlib import Path

from tests.ray_faults.draw import draw, on_ports
from tests.ray_faults.driver import experiment, serial
from tests.ray_faults.nodes import Nodes, permitted
from tests.ray_faults.trial import GOOD, run

FILE = Path("docs/data/ray_faults.csv")


def main() -> int:
    """Run the trials that the file lacks; the exit status says whether one broke a law."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=33)
    parser.add_argument("--only", type=int, nargs="+", help="these trials, without a file")
    parser.add_argument("--file", type=Path, default=FILE)
    parser.add_argument("--ports", action="store_true", help="two ports in place of namespaces")
    flags = parser.parse_args()
    rows = read(flags.file) if flags.only is None else []
    done = {int(row["trial"]) for row in rows}
    wanted = [t for t in flags.only or range(flags.trials) if t not in done]
    folder = Path(tempfile.mkdtemp(prefix="smsf", dir="/tmp"))
    print(f"folder {folder}", flush=True)
    base = experiment(folder / "base")
    lock = serial(base, folder / "serial")
    nodes = Nodes(folder, namespaces=not flags.ports and permitted())
    failed = 0
    try:
        for trial in wanted:
            drawn = draw(flags.seed, trial)
            fault = drawn if nodes.namespaces else on_ports(drawn)
            if fault is None:
                print(f"trial {trial} is left out: it needs namespaces", flush=True)
                continue
            row = run(fault, base, lock, nodes)
            row |= {"seed": str(flags.seed), "date": time.strftime("%Y-%m-%d", time.gmtime())}
            failed += row["end"] != GOOD
            print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
            if flags.only is None:
                rows.append(row)
                write(flags.file, rows)
    finally:
        nodes.close()
    return bool(failed)


def read(file: Path) -> list[dict[str, str]]:
    """Return the rows so far."""
    if not file.exists():
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def write(file: Path, rows: list[dict[str, str]]) -> None:
    """Write all rows, in the order of the trials."""
    rows.sort(key=lambda row: int(row["trial"]))
    with file.open("w", encoding="utf-8", newline="") as lines:
        table = csv.DictWriter(lines, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    sys.exit(main())
