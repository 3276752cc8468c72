"""Runs a campaign: ``python -m tests.fuzz params --seed 0 --count 10000``."""

import argparse
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Print a row for each kind of input, and every finding with an example."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("campaign", choices=["params", "dvc", "readers"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, help="inputs in all (10,000; dvc: 50)")
    parser.add_argument("--only", nargs="+", help="readers: some of them")
    flags = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        failed = _readers(flags) if flags.campaign == "readers" else _settings(flags, Path(folder))
    sys.stdout.write(f"{time.monotonic() - start:.0f} s\n")
    sys.exit(failed)


def _settings(flags: argparse.Namespace, folder: Path) -> bool:
    from tests.fuzz import settings_campaign

    if flags.campaign == "dvc":
        outcomes, findings = settings_campaign.through_dvc(folder, flags.seed, flags.count or 50)
    else:
        outcomes, findings = settings_campaign.in_process(folder, flags.seed, flags.count or 10_000)
    for kind, counts in outcomes.items():
        sys.stdout.write(f"{kind}: {sum(counts.values())}, {dict(counts)}\n")
    for about, example in findings.items():
        sys.stdout.write(f"\n{about}\n  {example}\n")
    return bool(findings)


def _readers(flags: argparse.Namespace) -> bool:
    from tests.fuzz import campaign
    from tests.fuzz.readers import READERS

    readers, found = flags.only or list(READERS), False
    sys.stdout.write(
        "| reader | files | refused | accepted | findings |\n| :-- | --: | --: | --: | --: |\n"
    )
    for reader in readers:
        (row,) = campaign.run([reader], flags.seed, -(-(flags.count or 10_000) // len(readers)))
        counts, found = row.counts, found or bool(row.findings)
        files = counts["refused"] + counts["accepted"] + counts["finding"]
        cells = (reader, files, counts["refused"], counts["accepted"], counts["findings"])
        sys.stdout.write(f"| {' | '.join(map(str, cells))} |\n")
        for about, example in row.findings.items():
            sys.stdout.write(f"    {about}\n        {example}\n")
        sys.stdout.flush()
    return found


if __name__ == "__main__":
    main()
