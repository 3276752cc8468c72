"""docs/paper.md: the first command of each line is planned, with its table beside it."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from pipeline.config import experiment
from pipeline.config.experiment import Experiment
from pipeline.plan.build import build
from pipeline.plan.plan import Plan
from pipeline.report.paper import lookup
from pipeline.report.paper.studies import l2_distances, published
from tests.project import ROOT

LAID_BESIDE = {16: "more_phases", 17: "swa"}
STUDIES = LAID_BESIDE | {15: "subgroups", 18: "sparsity"}
NOT_LAID_BESIDE = {8, 15}  # as the page says, and in a page of the study's own


def commands() -> list[tuple[int, str]]:
    """Return the first commands of every table that the page lists, with its number."""
    found = []
    for line in (ROOT / "docs" / "paper.md").read_text().splitlines():
        cells = line.split("|")
        if len(cells) == 5 and cells[1].strip().isdigit():
            found += [(int(cells[1]), code) for code in re.findall(r"`(-S [^`]*)`", cells[3])]
    return found


def experiment_with(command: str, folder: Path) -> Experiment:
    """Return what params.yaml is with the values that ``command`` sets."""
    own = yaml.safe_load((ROOT / "params.yaml").read_text())
    for word in shlex.split(command.replace("FILE", "resnet101.pth"))[1::2]:
        key, value = word.removeprefix("+").split("=", 1)
        *sections, last = key.split(".")
        place = own
        for section in sections:
            place = place.setdefault(section, {})
        assert word.startswith("+") is (last not in place), "as `dvc exp run` has it"
        place[last] = yaml.safe_load(value)
    (folder / "params.yaml").write_text(yaml.safe_dump(own))
    return experiment.load(folder / "params.yaml")


def tables(plan: Plan) -> set[int]:
    """Return the numbers of the paper's tables that have a row of ``plan``."""
    own = plan.params
    looked_up = [
        lookup.lookup(own, row.method, row.phase, ood=ood)
        for row in plan.rows
        for ood in (False, own.evaluate.corruptions == "all")
    ]
    found = {reference.table for reference in looked_up if reference}
    found |= {n for n, name in LAID_BESIDE.items() if not published(own, name).empty}
    return found | ({18} if l2_distances(own) else set())


def test_every_table_has_its_command():
    assert {number for number, _ in commands()} == set(range(1, 19)) - {3}


@pytest.mark.parametrize(("table", "command"), commands())
def test_a_command_has_the_rows_of_its_table_beside_it(table, command, tmp_path):
    plan = build(experiment_with(command, tmp_path))
    assert (table in tables(plan)) is (table not in NOT_LAID_BESIDE)
    if table == 8:
        assert set(lookup.published(plan.params)["n_phases"]) == {1, plan.params.phases}
    if table in STUDIES:
        assert STUDIES[table] in plan.params.studies
