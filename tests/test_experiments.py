"""The table of experiments, on recorded output of ``dvc exp show --json``."""

import io
import json
import re
import sys
from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pipeline.errors import UserError
from pipeline.show import columns, dvc_experiments, table
from pipeline.show.dvc_experiments import Row
from tests.project import ROOT

# A commit, two finished experiments, a queued one and one that failed in the queue.
RECORDED = ROOT / "tests" / "recorded" / "exp_show.json"


@pytest.fixture
def shown():
    return json.loads(RECORDED.read_text())


@pytest.fixture
def rows(shown):
    return dvc_experiments.rows(shown)


def row(name="r", settings=None, **scores):
    metrics = {method: {"test_score": score} for method, score in scores.items()}
    return Row(name, "success", "0" * 40, datetime(2026, 1, 1), settings or {}, metrics)


def printed(rows, shown, width):
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(table.table(rows, shown))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_each_experiment_is_a_row_with_its_settings_scores_and_state(rows):
    assert {row.name: row.state for row in rows} == {
        "main": "commit",
        "naked-berk": "success",
        "three": "success",
        "later": "queued",
        "broken": "failed",
    }
    found = {row.name: row for row in rows}
    assert found["naked-berk"].settings["augmentation.flip"] is True
    assert found["naked-berk"].settings["sparsity"] == 0.9
    assert found["three"].scores == {"dense": 0.802222, "imp": 0.708889, "sms_uniform": 0.715556}
    assert found["three"].best == "sms_uniform", "the dense network is no candidate"
    assert found["broken"].error == "Experiment run failed"
    assert len({row.baseline for row in rows}) == 1


def test_scores_that_dvc_shows_of_a_failed_experiment_are_not_its_own(shown, rows):
    """They are those that lay in the workspace when it was queued."""
    failed = shown[1]["experiments"][-1]
    assert failed["executor"]["state"] == "failed"
    stale = failed["revs"][0]["data"]["metrics"]["reports/metrics.json"]["data"]
    assert stale["sms_uniform"]["test_score"] > 0
    assert {row.name for row in rows if not row.scores} == {"later", "broken"}


def test_the_workspace_is_shown_only_if_it_differs(shown, rows):
    assert "workspace" not in {row.name for row in rows}
    data = shown[0]["data"]
    data["metrics"]["reports/metrics.json"]["data"]["imp"]["test_score"] = 0.99
    assert "workspace" in {row.name for row in dvc_experiments.rows(shown)}
    shown[1]["experiments"][0]["executor"] = {"state": "running"}
    assert "workspace" not in {row.name for row in dvc_experiments.rows(shown)}


def test_files_that_dvc_cannot_read_leave_an_empty_row(shown):
    broken = {"data": None, "error": {"type": "YAMLError", "msg": "not YAML"}}
    for files in ("params", "metrics"):
        for name in shown[1]["data"][files]:
            shown[1]["data"][files][name] = {"error": broken}
    shown[1]["experiments"][0]["revs"][0]["data"] = None
    found = {row.name: row for row in dvc_experiments.rows(shown)}
    assert (found["main"].scores, found["naked-berk"].settings) == ({}, {})


def test_settings_that_differ_have_a_column(rows):
    chosen = columns.choose(rows)
    assert chosen.settings == (
        "m",
        "pretrain.learning_rate",
        "sparsity",
        "augmentation.flip",
        "merge",
    )
    assert chosen.methods == ("dense", "imp", "sms_uniform")
    assert chosen.left_out == ()


def test_null_equals_a_missing_key_and_an_unknown_metric_differs_from_none():
    rows = [row(settings={"m": 3, "x": None, "metric": "accuracy"}), row(settings={"m": 3})]
    assert columns.choose(rows).settings == ()
    rows.append(row(settings={"m": 3, "metric": "bleu"}))
    assert columns.choose(rows).settings == ("metric",)


@given(st.integers(0, 60), st.integers(0, 40))
def test_there_are_at_most_25_columns_and_nothing_is_lost(settings, methods):
    scores = {f"method{n}": n / 100 for n in range(methods)}
    rows = [row(settings={f"s{n}": side for n in range(settings)}, **scores) for side in (0, 1)]
    chosen = columns.choose(rows)
    names = {f"s{n}" for n in range(settings)} | set(scores)
    assert columns.FIXED + len(chosen.settings) + len(chosen.methods) <= columns.LIMIT
    assert {*chosen.settings, *chosen.methods, *chosen.left_out} == names
    if chosen.left_out:
        assert columns.FIXED + len(chosen.settings) + len(chosen.methods) == columns.LIMIT
    assert list(chosen.methods) == list(scores)[methods - len(chosen.methods) :], "the best"


@given(st.lists(st.fixed_dictionaries({}, optional={"imp": st.floats(0, 1), "dense": st.just(1)})))
def test_the_best_experiment_is_first_and_those_without_a_score_are_last(scores):
    ordered = columns.sort([row(**values) for values in scores])
    best = [entry.scores.get("imp") for entry in ordered]
    expected = sorted((s["imp"] for s in scores if "imp" in s), reverse=True)
    assert best == expected + [None] * sum("imp" not in s for s in scores)


@pytest.mark.parametrize(
    ("key", "order", "first"),
    [
        ("best", None, "main"),
        ("best", "asc", "naked-berk"),
        ("experiment", None, "broken"),
        ("created", None, "later"),
        ("imp", "asc", "naked-berk"),
        ("m", None, "main"),
        ("m", "desc", "later"),
        ("sparsity", "desc", "naked-berk"),
        ("sms_uniform.over_best_candidate", None, "main"),
        ("augmentation.flip", None, "naked-berk"),
    ],
)
def test_keys_to_sort_by(rows, key, order, first):
    assert columns.sort(rows, key, order)[0].name == first


def test_a_number_to_sort_by_has_a_column(rows):
    key = "sms_uniform.over_best_candidate"
    chosen = columns.choose(rows, key)
    assert chosen.measure == key
    assert "0.011111" in "\n".join(printed(rows, chosen, 200))


def test_an_unknown_key_is_refused(rows):
    with pytest.raises(UserError, match=r"--sort-by sms: .* best, created, .*, imp, .*, m, "):
        columns.sort(rows, "sms")


def test_the_table_marks_the_best_method_and_shows_the_counts(rows):
    rows = [replace(row, counts=(11, 10)) if row.name == "three" else row for row in rows]
    lines = printed(columns.sort(rows), columns.choose(rows), 200)
    assert lines[0].startswith("Test accuracy (%)")
    (three,) = [line for line in lines if " three " in line]
    assert re.search(r"\s80\.22\s+70\.89\s+71\.56\*\s+11\s+10$", three)
    assert " ".join(lines).count("*") == 1 + 3, "the title's, and one of each row with scores"


def test_a_setting_that_is_no_number_is_shown_as_it_is():
    rows = [row("good", {"sparsity": 0.95}), row("bad", {"sparsity": "95%"})]
    lines = printed(rows, columns.choose(rows), 200)
    assert ["95.00 %" in line for line in lines if " good " in line] == [True]
    assert ["95%" in line for line in lines if " bad " in line] == [True]


def test_the_default_methods_and_three_settings_fit_120_columns():
    settings = {"m": 3, "sparsity": 0.95, "phases": 3}
    methods = ["dense", "imp", "imp_mx", "imp_reprune", "sms_greedy", "sms_uniform"]
    scores = dict.fromkeys(methods, 0.98667)
    rows = [row("niffy-rims", {**settings, "m": m}, **scores) for m in (3, 5)]
    rows.append(row("bitty-vows", {**settings, "sparsity": 0.9, "phases": 4}, **scores))
    rows = [replace(row, counts=(100, 100)) for row in rows]
    lines = printed(rows, columns.choose(rows), 120)
    assert sum("98.67*" in line for line in lines) == 3, "no row is broken"
    assert len([line for line in lines if "niffy-rims" in line and "100" in line]) == 2
    assert not any("…" in line for line in lines)


def test_notes_name_what_is_left_out_and_what_failed(rows):
    chosen = replace(columns.choose(rows), left_out=("seed",))
    notes = "\n".join(table.notes(rows, chosen))
    assert "seed; `dvc exp show` has everything" in notes
    assert "broken: Experiment run failed; `dvc queue logs broken`" in notes


@pytest.fixture
def dvc(monkeypatch, tmp_path):
    """Replace DVC's process by one that prints, and MLflow by one that fails."""

    def fake(output, message=""):
        script = "import sys; sys.stdout.write(sys.argv[1]); sys.stderr.write(sys.argv[2])"
        command = [sys.executable, "-c", script, output, message]
        popen = dvc_experiments.subprocess.Popen
        monkeypatch.setattr(
            dvc_experiments.subprocess, "Popen", lambda _, **more: popen(command, **more)
        )

    def fail(root):
        raise ConnectionError("no answer\nfrom the server")

    monkeypatch.setattr(table, "run_counts", fail)
    return fake


def test_without_experiments_there_is_one_sentence(dvc, capsys, tmp_path, shown):
    for entry in shown:
        entry["experiments"] = None
    dvc(json.dumps(shown))
    assert table.experiments(tmp_path, []) == 0
    assert capsys.readouterr().out == "no experiments yet: `dvc exp run -S m=5` makes one\n"


def test_a_failure_of_mlflow_costs_the_counts_only(dvc, capsys, tmp_path):
    dvc(RECORDED.read_text())
    assert table.experiments(tmp_path, []) == 0
    output = capsys.readouterr().out
    assert "naked-berk" in output
    assert "ran and cached are empty, because MLflow fails: no answer\n" in output


def test_what_dvc_refuses_is_one_sentence(dvc, tmp_path):
    dvc("", "usage: dvc\nERROR: unrecognized arguments: --x\n\nDVC is here to help\n")
    with pytest.raises(UserError, match=r"\(unrecognized arguments: --x\): ARGS must"):
        table.experiments(tmp_path, ["--x"])
