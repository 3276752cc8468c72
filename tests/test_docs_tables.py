"""The pages say what the stored results say."""

import re
import shutil
import statistics
from pathlib import Path

import pandas as pd
import pytest

from pipeline.errors import UserError
from pipeline.pages import gpu
from pipeline.pages.regions import REGION, TABLES, pages, rendered, update
from tests.project import ROOT


@pytest.mark.parametrize("page", pages(ROOT), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_says_what_the_stored_results_say(page):
    assert page.read_text() == rendered(ROOT, page), "run `make tables`"


def test_every_table_is_on_a_page():
    names = {name for page in pages(ROOT) for _, name, _, _ in REGION.findall(page.read_text())}
    assert names == set(TABLES)


@pytest.mark.parametrize("page", pages(ROOT), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_table_of_measurements_is_typed_in(page):
    rest = REGION.sub("", page.read_text())
    typed = [line for line in rest.splitlines() if re.match(r"\|.*(±|\| *[+-]?\d+\.\d+ *\|)", line)]
    assert typed == []


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of the pages and of what they are made from."""
    for folder in ("docs", "reports"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copyfile(ROOT / "README.md", tmp_path / "README.md")
    return tmp_path


def test_a_changed_number_reaches_every_page_that_has_it(copy):
    file = copy / "docs/data/soup_minus.csv"
    text = file.read_text()
    old = "multi30k,0.5,IMP,3,12.71,1.83,-0.06,-0.23,+0.11,1"
    assert text.count(old) == 1
    file.write_text(text.replace(old, old.replace("-0.06,-0.23", "+0.08,+0.04")))
    assert update(copy) == ["docs/results.md"]
    page = (copy / "docs/results.md").read_text()
    assert "**+0.08 (+0.04 to +0.11)**" in page  # significant now
    assert "| 50 % | +0.07 | **+0.08** | -0.43 |" in page  # in short as well
    assert update(copy) == []


def test_a_study_without_stored_rows_is_not_measured_yet(copy):
    (copy / "docs/data/study_latency.csv").unlink(missing_ok=True)
    update(copy)
    region = (copy / "docs/inference.md").read_text().split("<!-- table: latency -->")[1]
    assert region.startswith("\n\nNot measured yet.\n")


def test_a_region_that_nobody_writes_or_ends_is_refused(copy):
    page = copy / "docs/paper.md"
    page.write_text("<!-- table: nonsense -->\n<!-- end -->\n")
    with pytest.raises(UserError, match="there is no table nonsense"):
        update(copy)
    page.write_text("<!-- table: readme -->\n")
    with pytest.raises(UserError, match="needs its `<!-- end -->`"):
        update(copy)


def run(seed: int, accuracies: dict[str, float], **facts: str) -> list[dict[str, object]]:
    """Return rows of docs/data/runs.csv: one seed of Table 5's last phase."""
    common = {"experiment": "e1", "name": f"table5-s{seed}", "settings": "m=3", "commit": "a",
              "golden": "g1", "card": "H100", "torch": "2.11", "date": "2026-01-01"}  # fmt: skip
    return [
        common | facts | {"method": method, "phase": 3, "seed": seed, "sparsity": 0.98}
        | {"test_score": value, "best_candidate_test_score": None}
        for method, value in accuracies.items()
    ]  # fmt: skip


def test_commits_are_pooled_while_the_golden_numbers_are_the_same(copy):
    soups, imps = [0.951, 0.952, 0.950], [0.941, 0.943, 0.941]
    rows = run(7, {"sms_uniform": 0.1, "imp": 0.2}, golden="g0")  # other golden numbers
    rows += run(8, {"sms_uniform": 0.3, "imp": 0.4}, card="CPU")  # a rehearsal
    for seed, (soup, imp) in enumerate(zip(soups, imps, strict=True)):
        rows += run(seed, {"sms_uniform": soup, "imp": imp}, commit=f"c{seed}")
    pd.DataFrame(rows).to_csv(copy / gpu.RUNS, index=False)
    changed = update(copy)
    assert set(changed) == {"README.md", "docs/gpu.md", "docs/results.md"}
    line = next(
        x for x in (copy / "docs/gpu.md").read_text().splitlines() if "| SMS uniform |" in x
    )
    mean, std = 100 * statistics.mean(soups), 100 * statistics.stdev(soups)
    assert f"{mean:.2f} ± {std:.2f}" in line
    assert "94.91 ± 0.16" in line  # the paper's Table 5
    assert f"{mean - 94.91:+.2f}" in line
    # 1.0, 0.9 and 0.9 points: 0.93 ± 4.303 · 0.0577 / √3
    assert "**+0.93 (+0.79 to +1.08)**" in (copy / "docs/gpu.md").read_text()
    assert "commit c0, c1, c2;" in (copy / "docs/gpu.md").read_text()
    readme = (copy / "README.md").read_text()
    assert (
        "| CIFAR-10, ResNet-18, 98 % sparse | SMS uniform | IMP |\n| :-- | --: | --: |\n"
        f"| test accuracy (%) | {mean:.2f} ± {std:.2f} | 94.17 ± 0.12 |\n"
        "| [the paper's](docs/gpu.md#table-5-of-the-paper) | 94.91 ± 0.16 | "
    ) in readme
    assert len(readme.splitlines()) <= 120
    assert "\n\n\n" not in readme


def test_a_speed_stands_beside_the_obvious_one_and_the_peak(copy):
    facts = {
        "card": "H100",
        "torch": "2.11",
        "date": "2026-01-01",
        "network": "resnet18",
        "jobs": 1,
    }
    pd.DataFrame(
        [
            facts | {"measure": "loop", "way": "obvious", "images_per_s": 20_000.0},
            facts
            | {"measure": "loop", "way": "graph", "images_per_s": 65_000.0, "share_of_peak": 0.27},
            facts | {"measure": "phase", "m": 3, "seconds": 12.5},
        ]
    ).to_csv(copy / gpu.MEASURES, index=False)
    update(copy)
    page = (copy / "docs/gpu.md").read_text()
    assert (
        "| resnet18 | graph | 1 | 65,000 | 3.25 | 27.0 % | H100, torch 2.11, 2026-01-01 |" in page
    )
    assert "12.5" in page
    assert (copy / gpu.FIGURE).stat().st_size > 1000
