"""Corruption sets on disk, and accuracies over them."""

import json

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.evaluate.corruption_error import mean_corruption_error
from pipeline.evaluate.corruptions.constants import NAMES_15, NAMES_19, SEVERITIES
from pipeline.evaluate.corruptions.npy_set import NpySet, read
from pipeline.evaluate.corruptions.write_npy_set import save_set
from pipeline.evaluate.robustness import robustness

LABELS = np.array([0, 1, 2, 0])


def written(folder):
    """Write a set whose images say which corruption, severity and image they are."""

    def corrupt(name, severity):
        images = np.zeros((len(LABELS), 5, 5, 3), np.uint8)
        images[..., 0] = NAMES_19.index(name)
        images[..., 1] = severity
        images[..., 2] = np.arange(len(LABELS))[:, None, None]
        return images

    save_set(folder, corrupt, LABELS, {"constants": "cifar"})
    return folder


def test_a_generated_set_has_cifar_c_s_layout(tmp_path):
    folder = written(tmp_path / "set")
    assert {path.name for path in folder.iterdir()} == {
        "labels.npy",
        "meta.json",
        *(f"{name}.npy" for name in NAMES_19),
    }
    fog = np.load(folder / "fog.npy")
    assert (fog.dtype, fog.shape) == (np.uint8, (20, 5, 5, 3))
    np.testing.assert_array_equal(fog[:, 0, 0, 1], np.repeat(SEVERITIES, 4))
    np.testing.assert_array_equal(np.load(folder / "labels.npy"), np.tile(LABELS, 5))
    assert json.loads((folder / "meta.json").read_text()) == {
        "constants": "cifar",
        "synthetic": True,
    }


def test_writing_tells_what_is_done(tmp_path, monkeypatch):
    events = tmp_path / "events"
    monkeypatch.setenv("SMS_EVENTS", str(events))
    written(tmp_path / "set")
    told = [json.loads(line) for line in events.read_text().splitlines()]
    assert [event["corruption"] for event in told] == list(NAMES_19)
    assert [event["done"] for event in told] == list(range(1, 20))


def test_reading_gives_each_corruption_and_severity_from_the_disk(tmp_path):
    found = read(written(tmp_path))
    assert found.synthetic
    for name in NAMES_19:
        assert isinstance(found.images[name], np.memmap)
        for severity in SEVERITIES:
            ((images, labels),) = found.batches(name, severity)
            assert images.dtype == torch.uint8
            assert (images[:, 0] == NAMES_19.index(name)).all()
            assert (images[:, 1] == severity).all()
            assert images[:, 2, 0, 0].tolist() == [0, 1, 2, 3]
            assert labels.tolist() == LABELS.tolist()


def test_a_downloaded_set_is_not_synthetic(tmp_path):
    folder = written(tmp_path)
    (folder / "meta.json").unlink()
    np.save(folder / "labels.npy", np.tile(LABELS, 5).astype(np.uint8))  # as CIFAR-C's are
    found = read(folder)
    assert not found.synthetic
    assert found.labels.dtype == np.int64


def missing(folder):
    (folder / "frost.npy").unlink()


def truncated(folder):
    whole = (folder / "snow.npy").read_bytes()
    (folder / "snow.npy").write_bytes(whole[:-100])


def empty(folder):
    (folder / "snow.npy").write_bytes(b"")


def foreign(folder):
    (folder / "snow.npy").write_text("<html>not found</html>")


def pickled(folder):
    np.save(folder / "snow.npy", np.array([{"code": "runs"}]), allow_pickle=True)


def floats(folder):
    np.save(folder / "fog.npy", np.zeros((20, 5, 5, 3)))


def other_size(folder):
    np.save(folder / "fog.npy", np.zeros((20, 6, 6, 3), np.uint8))


def fewer(folder):
    np.save(folder / "fog.npy", np.zeros((15, 5, 5, 3), np.uint8))


def labels_not_five_fold(folder):
    np.save(folder / "labels.npy", np.zeros(21, int))


def no_labels(folder):
    np.save(folder / "labels.npy", np.zeros(0, int))


def float_labels(folder):
    np.save(folder / "labels.npy", np.zeros(20))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (missing, r"frost\.npy is missing"),
        (truncated, r"snow\.npy"),
        (empty, r"snow\.npy"),
        (foreign, r"snow\.npy"),
        (pickled, r"snow\.npy"),
        (floats, r"fog\.npy is float64"),
        (other_size, r"fog\.npy .*\(20, 6, 6, 3\)"),
        (fewer, r"fog\.npy has 15 images .*20 labels"),
        (labels_not_five_fold, r"labels\.npy"),
        (no_labels, r"labels\.npy"),
        (float_labels, r"labels\.npy"),
    ],
)
def test_damage_is_named_by_file(tmp_path, damage, named):
    folder = written(tmp_path)
    damage(folder)
    with pytest.raises(UserError, match=named):
        read(folder)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.labels\.npy is missing"):
        read(tmp_path / "nowhere")


def right_until(worst):
    """Return a network that knows image i as long as the severity is below worst[i]."""

    def predict(images):
        assert images.dtype == torch.uint8
        assert images.shape[1:] == (3, 5, 5)
        severity, number = images[:, 1, 0, 0].long(), images[:, 2, 0, 0].long()
        extra = images[:, 0, 0, 0] >= len(NAMES_15)  # the four extra ones it never knows
        known = (severity < torch.tensor(worst)[number]) & ~extra
        truth = torch.from_numpy(LABELS)[number]
        return torch.eye(3)[torch.where(known, truth, (truth + 1) % 3)]

    return predict


def test_accuracies_by_corruption_and_severity(tmp_path):
    found = robustness(right_until([2, 4, 9, 9]), read(written(tmp_path)))
    expected = [1.0, 0.75, 0.75, 0.5, 0.5]
    assert list(found["by_corruption"]) == list(NAMES_19)
    assert found["by_corruption"]["fog"] == expected
    assert found["by_corruption"]["spatter"] == [0.0] * 5
    assert found["mean_15"] == pytest.approx(0.7)
    assert found["mean_19"] == pytest.approx(0.7 * 15 / 19)
    assert found["synthetic"] is True


def test_another_data_set_s_labels_are_refused():
    images = dict.fromkeys(NAMES_19, np.zeros((5, 4, 4, 3), np.uint8))
    hundred = NpySet(images, np.array([57] * 5), synthetic=False)
    with pytest.raises(UserError, match="label 57"):
        robustness(lambda batch: torch.zeros(len(batch), 10), hundred)


def test_mean_corruption_error_by_hand():
    dense = {"fog": [0.9, 0.8, 0.7, 0.6, 0.5], "snow": [0.9] * 5}
    model = {"fog": [0.8, 0.6, 0.4, 0.2, 0.0], "snow": [0.95] * 5}
    assert mean_corruption_error(model, dense, ["fog", "snow"]) == pytest.approx((2 + 0.5) / 2)
    assert mean_corruption_error(dense, dense, ["fog", "snow"]) == pytest.approx(1)


def test_a_corruption_without_dense_errors_has_no_ratio():
    dense = {"fog": [1.0] * 5, "snow": [0.5] * 5}
    model = {"fog": [0.9] * 5, "snow": [0.75] * 5}
    assert mean_corruption_error(model, dense, ["fog", "snow"]) == pytest.approx(0.5)
    assert mean_corruption_error(model, dense, ["fog"]) is None
