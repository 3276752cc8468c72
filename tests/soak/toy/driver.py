"""The project's root stage with a short report, and without PyTorch in the fork server."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.run import interrupts

if TYPE_CHECKING:
    from pipeline.plan.plan import Plan
    from pipeline.track.tracker import Tracker


def publish(
    plan: "Plan", root: Path, artifacts: Mapping[str, str], tracker: "Tracker | None" = None
) -> int:
    """Write the scores as reports/metrics.json, log them, and return their number."""
    rows: list[dict[str, Any]] = [
        {
            "method": row.method,
            "phase": row.phase,
            "seed": row.seed,
            **json.loads((root / "artifacts" / row.evaluate / "metrics.json").read_text()),
        }
        for row in plan.rows
        if row.evaluate in artifacts
    ]
    (root / "reports").mkdir(exist_ok=True)
    (root / "reports" / "metrics.json").write_text(json.dumps(rows))
    if tracker is not None:
        tracker.report(root / "reports", rows)
    return len(rows)


if __name__ == "__main__":
    with interrupts.stoppable():
        from pipeline import repro
        from pipeline.__main__ import main
        from pipeline.run import driver
        from pipeline.run.local import LocalEngine

        driver.choose = lambda root, *_: LocalEngine(root, 2, ())  # type: ignore[assignment]
        repro._publish = publish
        sys.argv[1:] = ["run"]
        main()
