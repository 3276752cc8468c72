"""Fails unless the checkout named as argument has a complete report of the default graph."""

import csv
import sys
from pathlib import Path

PHASES = range(1, 4)
SOUPS = ("sms_uniform", "sms_greedy")
ROWS = {
    ("dense", 0),
    ("imp_reprune", 3),
    *((method, phase) for method in ("imp", "imp_mx", *SOUPS) for phase in PHASES),
}
GUESSING = 0.1  # the accuracy of a guess among ten digits


def problems(reports: Path) -> list[str]:
    """Return the defects of the report, a sentence each."""
    with (reports / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = {(row["method"], int(row["phase"])): row for row in csv.DictReader(file)}
    found = [f"{method} has no row for phase {phase}" for method, phase in sorted(ROWS - set(rows))]
    for (method, phase), row in sorted(rows.items()):
        needed = ["test_score", "val_score", "test_loss", "sparsity"]
        if phase == max(PHASES):
            needed += ["ood_accuracy_15", "ood_accuracy_19"]
        if method in SOUPS:
            needed += ["best_candidate_test_score", "ensemble_test_score"]
        gaps = [name for name in needed if not row.get(name)]
        if gaps:
            found.append(f"{method}, phase {phase}, lacks {', '.join(gaps)}")
        elif not 3 * GUESSING < float(row["test_score"]) <= 1:
            found.append(f"{method}, phase {phase}, learned nothing: {row['test_score']}")
        elif phase == max(PHASES) and float(row["sparsity"]) < 0.95:
            found.append(f"{method}, phase {phase}, is not sparse: {row['sparsity']}")
    page = reports / "results.md"
    if not page.is_file() or "SMS uniform" not in page.read_text(encoding="utf-8"):
        found.append(f"{page} does not speak of SMS uniform")
    figures = list((reports / "figures").glob("*.png"))
    if not figures or any(figure.stat().st_size == 0 for figure in figures):
        found.append(f"{reports} has no figures, or empty ones")
    return found


if __name__ == "__main__":
    failures = problems(Path(sys.argv[1]) / "reports")
    for failure in failures:
        sys.stderr.write(f"error: {failure}\n")
    if not failures:
        sys.stdout.write(f"the report is filled: {len(ROWS)} rows\n")
    sys.exit(bool(failures))
