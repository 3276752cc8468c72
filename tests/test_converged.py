"""Rows by seed of converged networks, and the table that says which method to use."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks import converged as runs
from pipeline.pages import converged
from tests.project import ROOT


def stored(folder: Path, soups: list[float], imp: list[float], longer: list[float]) -> Path:
    """Write docs/data/converged.csv with one experiment, a seed for each number (in points)."""
    common = {"experiment": "e", "golden": "g", "data": "shirts", "network": "resnet8",
              "pretrain_epochs": 80, "retrain_epochs": 8, "target_sparsity": 0.9}  # fmt: skip
    by_method = {"sms_uniform": soups, "imp": imp, "imp_mx": longer}
    rows = [
        common | {"method": method, "phase": 1, "seed": seed, "sparsity": 0.9}
        | {"test_score": score / 100, "best_candidate_test_score": None}
        for method, values in by_method.items() for seed, score in enumerate(values)
    ]  # fmt: skip
    for epochs, gain in ((80, 0.0), (120, 0.001)):
        rows += [
            common | {"pretrain_epochs": epochs, "experiment": str(epochs), "method": "dense"}
            | {"phase": 0, "seed": seed, "sparsity": 0.0, "test_score": 0.85 + 0.01 * seed + gain}
            for seed in range(len(soups))
        ]  # fmt: skip
        rows[-1]["test_score"] += gain
    frame = pd.DataFrame(rows)
    frame.loc[(frame["method"] == "dense") & (frame["pretrain_epochs"] == 80), "experiment"] = "e"
    path = folder / converged.ROWS
    path.parent.mkdir(parents=True)
    frame.to_csv(path, index=False)
    return folder


@pytest.mark.parametrize(
    ("imp", "longer", "use"),
    [
        ([80.0, 81.1, 82.0], [81.0, 82.1, 82.9], "SMS"),  # better than IMP, level with the longer
        ([80.0, 81.1, 82.0], [82.0, 83.1, 84.0], "IMP, m times longer"),
        ([81.0, 82.1, 82.9], [80.0, 81.1, 82.0], "SMS"),  # better than the longer one only
        ([81.0, 82.1, 82.9], [81.0, 81.9, 83.1], "IMP"),  # level with both
    ],
)
def test_the_method_to_use_follows_the_intervals(tmp_path, imp, longer, use):
    text = converged.what_to_use(stored(tmp_path, [81.0, 82.0, 83.0], imp, longer))
    line = text.splitlines()[2]
    assert line.startswith("| shirts, resnet8, 80 + 8 | 90 % | 3 |")
    assert line.endswith(f"| {use} |")


def test_the_gains_are_paired_by_seed(tmp_path):
    folder = stored(tmp_path, [81.0, 82.0, 83.0], [80.0, 81.1, 82.0], [83.0, 81.0])
    # 1.0, 0.9 and 1.0 points: 0.97 ± 4.303 · 0.0577 / √3; the longer one has two seeds: -2 and 1.
    text = converged.what_to_use(folder)
    assert "| **+0.97 (+0.82 to +1.11)** | -0.50 (-19.56 to +18.56) |" in text
    lines = converged.methods(folder).splitlines()
    assert "| IMP | **+0.97 (+0.82 to +1.11)**, n = 3 |" in lines
    assert "| IMP, m times longer | -0.50 (-19.56 to +18.56), n = 2 |" in lines


def test_methods_are_compared_after_their_own_last_phase_at_the_sparsity_they_have(tmp_path):
    folder = stored(tmp_path, [81.0, 82.0], [80.0, 81.0], [80.0, 81.0])
    path = folder / converged.ROWS
    rows = pd.read_csv(path)
    imp = rows[rows["method"] == "imp"]
    early = imp.assign(method="imp_phases", phase=1, sparsity=0.5, test_score=0.99)
    late = imp.assign(method="imp_phases", phase=3, test_score=0.815)
    sparse = imp.assign(method="str", phase=1, sparsity=0.42, test_score=0.805)
    rows.loc[rows["method"] == "sms_uniform", "best_candidate_test_score"] = 0.805
    pd.concat([rows, early, late, sparse]).to_csv(path, index=False)
    lines = converged.methods(folder).splitlines()
    assert "| its best candidate | +1.00 (-5.35 to +7.35), n = 2 |" in lines
    assert "| IMP in m times the phases | 0.00 (-6.35 to +6.35), n = 2 |" in lines
    assert "| STR | +1.00 (-5.35 to +7.35), n = 2 at 42 % |" in lines


def test_dense_networks_stand_beside_those_trained_half_as_long_again(tmp_path):
    folder = stored(tmp_path, [81.0, 82.0, 83.0], [80.0], [80.0])
    # 0.1, 0.1 and 0.2 points: 0.13 ± 4.303 · 0.0577 / √3.
    line = "| 80 | 86.00 ± 1.00 | 120 | 86.13 ± 1.05 | +0.13 (-0.01 to +0.28) | 3 |"
    assert line in converged.dense(folder)


def test_rows_are_added_once(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    shutil.copytree(ROOT / "tests" / "golden", tmp_path / "tests" / "golden")
    (tmp_path / "docs" / "data").mkdir(parents=True)
    settings, results = ROOT / "params.yaml", ROOT / "reports" / "results.csv"
    scored = pd.read_csv(results)["test_score"].notna().sum()
    assert runs.rows("digits", results, settings).startswith(f"digits: {scored} of {scored}")
    assert runs.rows("digits", results, settings).startswith(f"digits: 0 of {scored}")
    table = pd.read_csv(tmp_path / converged.ROWS)
    assert set(table["pretrain_epochs"]) == {30}
    assert set(table["target_sparsity"]) == {0.95}


def test_the_images_are_the_first_of_each_class(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "TRAIN_IMAGES", 2)
    pixels = np.arange(30 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(30, 28, 28)
    labels = np.arange(30, dtype=np.uint8) % 10
    for prefix in ("train", "t10k"):
        for kind, array, header in (("images-idx3", pixels, 16), ("labels-idx1", labels, 8)):
            raw = b"\0" * header + array.tobytes()
            (tmp_path / f"{prefix}-{kind}-ubyte.gz").write_bytes(gzip.compress(raw))
    runs.images(tmp_path, tmp_path / "out")
    train = sorted(path.name for path in (tmp_path / "out/train/3_dress").iterdir())
    assert train == ["00003.png", "00013.png"]
    assert len(list((tmp_path / "out/test").rglob("*.png"))) == 30
    with Image.open(tmp_path / "out/train/3_dress/00013.png") as image:
        assert (np.asarray(image) == pixels[13]).all()
