"""A checkpoint comes back with the same bits, in few bytes, or not at all."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from safetensors.torch import save_file

from pipeline.errors import UserError
from pipeline.storage.checkpoint import (
    Checkpoint,
    load,
    load_tensors,
    read_json,
    save,
    save_tensors,
    sparsity,
    write_json,
)
from pipeline.storage.sparse_codec import pack, unpack

in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def bits(tensor: torch.Tensor) -> np.ndarray:
    return np.frombuffer(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes(), np.uint8)


def masked(seed: int, shape: tuple[int, ...], density: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(shape, generator=generator) < density
    weight = torch.randn(shape, generator=generator)
    return torch.where(mask, weight, 0.0), mask


def example() -> Checkpoint:
    weight, mask = masked(0, (40, 30), 0.05)
    state = {
        "b.weight": weight,
        "b.bias": torch.randn(40, generator=torch.Generator().manual_seed(1)),
        "a.num_batches_tracked": torch.tensor(7),
    }
    return Checkpoint(state, {"b.weight": mask}, {"network": "resnet8", "phase": 2})


class TestRoundTrip:
    @in_one_folder
    @given(
        npst.arrays(
            np.float32,
            npst.array_shapes(max_dims=4, max_side=9),
            elements=st.one_of(
                st.sampled_from([0.0, -0.0, 1e-45, -3e38]),
                st.floats(width=32, allow_nan=False, allow_infinity=False),
            ),
        ),
        st.data(),
    )
    def test_kept_values_keep_their_bits(
        self, tmp_path: Path, values: np.ndarray, data: st.DataObject
    ) -> None:
        mask = torch.from_numpy(data.draw(npst.arrays(bool, values.shape)))
        weight = torch.where(mask, torch.from_numpy(values), 0.0)
        save(tmp_path / "model", Checkpoint({"w": weight}, {"w": mask}, {}))
        again = load(tmp_path / "model")
        assert torch.equal(again.masks["w"], mask)
        assert again.state["w"].shape == weight.shape
        np.testing.assert_array_equal(bits(again.state["w"]), bits(weight))

    @in_one_folder
    @given(st.integers(0, 99), st.sampled_from([0.0, 0.001, 0.02, 0.1, 0.125, 0.5, 1.0]))
    def test_any_density(self, tmp_path: Path, seed: int, density: float) -> None:
        weight, mask = masked(seed, (7, 5, 40), density)
        save(tmp_path / "model", Checkpoint({"w": weight}, {"w": mask}, {}))
        again = load(tmp_path / "model")
        assert torch.equal(again.masks["w"], mask)
        assert torch.equal(again.state["w"], weight)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64])
    def test_any_dtype(self, tmp_path: Path, dtype: torch.dtype) -> None:
        weight, mask = masked(3, (6, 50), 0.1)
        tensors = {"w": (weight * 100).to(dtype), "dense": (weight * 7).to(dtype)}
        save(tmp_path / "model", Checkpoint(tensors, {"w": mask}, {}))
        again = load(tmp_path / "model").state
        assert all(again[name].dtype == dtype for name in tensors)
        assert all(torch.equal(again[name], tensors[name]) for name in tensors)

    def test_order_meta_and_buffers(self, tmp_path: Path) -> None:
        checkpoint = example()
        save(tmp_path / "model", checkpoint)
        again = load(tmp_path / "model")
        assert list(again.state) == ["b.weight", "b.bias", "a.num_batches_tracked"]
        assert all(torch.equal(again.state[name], checkpoint.state[name]) for name in again.state)
        assert again.meta == {"network": "resnet8", "phase": 2}

    def test_channels_last(self, tmp_path: Path) -> None:
        weight, mask = masked(2, (8, 6, 3, 3), 0.3)
        last = torch.channels_last
        turned = Checkpoint(
            {"w": weight.to(memory_format=last)}, {"w": mask.to(memory_format=last)}, {}
        )
        save(tmp_path / "turned", turned)
        save(tmp_path / "plain", Checkpoint({"w": weight}, {"w": mask}, {}))
        assert (tmp_path / "turned").read_bytes() == (tmp_path / "plain").read_bytes()
        assert torch.equal(load(tmp_path / "turned").state["w"], weight)

    def test_a_pruned_minus_zero_loads_as_plus_zero(self, tmp_path: Path) -> None:
        mask = torch.tensor([True, False])
        save(tmp_path / "model", Checkpoint({"w": torch.tensor([-0.0, -0.0])}, {"w": mask}, {}))
        assert torch.signbit(load(tmp_path / "model").state["w"]).tolist() == [True, False]

    def test_equal_checkpoints_are_equal_bytes(self, tmp_path: Path) -> None:
        written = set()
        for _ in range(5):
            save(tmp_path / "model", example())
            written.add((tmp_path / "model").read_bytes())
        assert len(written) == 1

    def test_plain_tensors(self, tmp_path: Path) -> None:
        tensors = {"images": torch.arange(6, dtype=torch.uint8).view(2, 3).T}
        save_tensors(tmp_path / "new" / "data", tensors)
        assert torch.equal(load_tensors(tmp_path / "new" / "data")["images"], tensors["images"])


class TestPacking:
    def test_gap_code_by_hand(self) -> None:
        """Gaps 0, 3, 254, 255, 256 and 510: an escape moves 255 on, the last byte lands."""
        mask = torch.zeros(10_000, dtype=torch.bool)
        kept = np.cumsum(np.array([0, 3, 254, 255, 256, 510]) + 1) - 1
        mask[torch.from_numpy(kept)] = True
        kind, where, values = pack(mask.float(), mask)
        assert kind == "gaps"
        assert where.tolist() == [0, 3, 254, 255, 0, 255, 1, 255, 255, 0]
        assert values.tolist() == [1.0] * 6
        assert torch.equal(unpack(kind, where, values, [10_000])[1], mask)

    @given(st.integers(0, 999), st.integers(1, 5000), st.floats(0, 1))
    def test_the_smaller_code_is_taken(self, seed: int, size: int, density: float) -> None:
        weight, mask = masked(seed, (size,), density**3)
        _, where, values = pack(weight, mask)
        gap_bytes, gap = 0, 0
        for kept in mask.tolist():
            gap_bytes += 1 + gap // 255 if kept else 0
            gap = 0 if kept else gap + 1
        assert len(where) == min((size + 7) // 8, gap_bytes)
        assert len(values) == mask.sum()

    def test_a_lost_weight_is_refused(self) -> None:
        with pytest.raises(ValueError, match="not zero"):
            pack(torch.ones(3), torch.tensor([True, False, True]))

    def test_98_percent_in_a_thirtieth(self, tmp_path: Path) -> None:
        weight, mask = masked(0, (1000, 1000), 0.02)
        save(tmp_path / "model", Checkpoint({"w": weight}, {"w": mask}, {}))
        assert (tmp_path / "model").stat().st_size < 4 * 1_000_000 / 30


class TestRefusals:
    @in_one_folder
    @given(st.floats(0, 1, exclude_max=True))
    def test_truncated_anywhere(self, tmp_path: Path, fraction: float) -> None:
        path = tmp_path / "model.safetensors"
        save(path, example())
        whole = path.read_bytes()
        path.write_bytes(whole[: int(fraction * len(whole))])
        with pytest.raises(UserError, match=r"model\.safetensors is truncated .* `dvc repro`"):
            load(path)

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"gone is missing: run `dvc repro`"):
            load(tmp_path / "gone")

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="delete it"):
            load(tmp_path)

    def test_foreign(self, tmp_path: Path) -> None:
        save_file({"w": torch.ones(2)}, tmp_path / "other", {"format": "pt"})
        with pytest.raises(UserError, match="no checkpoint of this pipeline"):
            load(tmp_path / "other")

    def test_another_version(self, tmp_path: Path) -> None:
        header = {"sparse-model-soups": json.dumps({"version": 99})}
        save_file({"w": torch.ones(2)}, tmp_path / "later", header)
        with pytest.raises(UserError, match="version 99"):
            load(tmp_path / "later")

    @pytest.mark.parametrize(("kind", "where"), [("bits", [0b1110_0000]), ("gaps", [0, 255, 7])])
    def test_positions_that_do_not_fit(self, tmp_path: Path, kind: str, where: list[int]) -> None:
        header = {"version": 1, "meta": {}, "state": ["w"], "masked": [["w", kind, [8]]]}
        tensors = {
            f"w:{kind}": torch.tensor(where, dtype=torch.uint8),
            "w:values": torch.ones(2),
        }
        save_file(tensors, tmp_path / "bad", {"sparse-model-soups": json.dumps(header)})
        with pytest.raises(UserError, match="delete it"):
            load(tmp_path / "bad")

    @pytest.mark.parametrize(("gap", "fits"), [(7, True), (8, False)])
    def test_the_last_position_is_the_size_less_one(self, gap: int, fits: bool) -> None:
        where, values = torch.tensor([gap], dtype=torch.uint8), torch.ones(1)
        if fits:
            assert unpack("gaps", where, values, [8])[1].tolist() == [False] * 7 + [True]
        else:
            with pytest.raises(ValueError, match="do not fit"):
                unpack("gaps", where, values, [8])

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    @pytest.mark.parametrize("name", ["b.weight", "b.bias"])
    def test_diverged(self, tmp_path: Path, value: float, name: str) -> None:
        path = tmp_path / "model"
        save(path, example())
        before = path.read_bytes()
        broken = example()
        broken.state[name].view(-1)[broken.masks["b.weight"].view(-1).nonzero()[0]] = value
        with pytest.raises(UserError, match=f"'{name}' holds NaN .* lower the learning rate"):
            save(path, broken)
        assert path.read_bytes() == before
        assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_sparsity_counts_masks_over_the_names_given() -> None:
    mask = torch.tensor([True, False, False, False])
    checkpoint = Checkpoint({"a": torch.zeros(4), "b": torch.zeros(12)}, {"a": mask}, {})
    assert sparsity(checkpoint, ["a"]) == 3 / 4
    assert sparsity(checkpoint, ["a", "b"]) == 3 / 16
    assert sparsity(checkpoint, ["b"]) == 0.0
    assert sparsity(checkpoint, []) == 0.0


class TestJson:
    def test_round_trip_and_bytes(self, tmp_path: Path) -> None:
        write_json(tmp_path / "m", {"b": 0.1, "a": [1, None]})
        assert (
            tmp_path / "m"
        ).read_text() == '{\n  "a": [\n    1,\n    null\n  ],\n  "b": 0.1\n}\n'
        assert read_json(tmp_path / "m") == {"a": [1, None], "b": 0.1}

    def test_nan_is_refused_and_the_old_file_stays(self, tmp_path: Path) -> None:
        write_json(tmp_path / "m", 1)
        with pytest.raises(UserError, match="m would hold NaN"):
            write_json(tmp_path / "m", {"loss": float("nan")})
        assert read_json(tmp_path / "m") == 1
        assert [entry.name for entry in tmp_path.iterdir()] == ["m"]

    def test_missing_and_broken(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="gone is missing"):
            read_json(tmp_path / "gone")
        (tmp_path / "half").write_text('{"a": ')
        with pytest.raises(UserError, match="half is not valid JSON"):
            read_json(tmp_path / "half")


def test_files_may_be_read_by_whoever_may_read_their_neighbours(tmp_path):
    save_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(2)})
    write_json(tmp_path / "b.json", {})
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1
