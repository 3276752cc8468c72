"""Compiled inference: equal to PyTorch for every geometry, instruction set and network."""

import json
import shutil
import threading
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from pipeline import inference
from pipeline.channels.shrink import kept_filters, shrink
from pipeline.errors import UserError
from pipeline.inference import costs
from pipeline.inference import library as kernels
from pipeline.inference.compiled import DIGEST, FORMAT
from pipeline.inference.geometry import Reading
from pipeline.inference.lower import BY_INDEX
from pipeline.inference.network import split
from pipeline.inference.rows import dense_rows, sparse_rows
from pipeline.models.build import build
from pipeline.prune.filters import prune_filters
from pipeline.storage.tensors import read, save_tensors
from tests.test_filters import checkpoint_of, loaded, randomised
from tests.test_inference_costs import rows_of

ISAS = ["avx512", "avx2", "scalar"]
TOLERANCE = 1e-4


def usable(isa):
    order = {"DEFAULT": 0, "AVX2": 1, "AVX512": 2}
    have = order.get(torch.backends.cpu.get_cpu_capability(), 0)
    return {"scalar": 0, "avx2": 1, "avx512": 2}[isa] <= have


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    """Compile into a folder of the tests' own, once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(kernels.CACHE_VARIABLE, str(tmp_path_factory.mktemp("kernels")))
        kernels._library.cache_clear()
        yield
    kernels._library.cache_clear()


@pytest.fixture(params=ISAS)
def isa(request, monkeypatch):
    if not usable(request.param):
        pytest.skip(f"this CPU has no {request.param}")
    monkeypatch.setenv(kernels.VARIABLE, request.param)
    return request.param


def sparse(model, kept, seed=0):
    """Keep a random fraction of the weights; give BatchNorm statistics that matter."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor, low, high):
        return tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight *= torch.rand(layer.weight.shape, generator=generator) < kept
            if isinstance(layer, nn.BatchNorm2d):
                uniform(layer.running_mean, -0.2, 0.2)
                uniform(layer.running_var, 0.5, 2)
                uniform(layer.weight, 0.5, 1.5)
                uniform(layer.bias, -0.2, 0.2)
    return model.eval()


def difference(model, images, compiled=None):
    """Return max |compiled - model| / max |model| of the outputs."""
    with torch.inference_mode():
        expected = model(images)
    compiled = compiled or inference.compile(model, images.shape[1:])
    result = compiled(images)
    assert result.shape == expected.shape
    return float((result - expected).abs().max() / expected.abs().max().clamp(min=1e-6))


@st.composite
def convolutions(draw):
    """Draw a convolution of any geometry, with an image that is large enough for it."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 4]))
    kernel = draw(st.tuples(*[st.sampled_from([1, 2, 3, 5, 7])] * 2))
    dilation = draw(st.sampled_from([1, 1, 1, 2]))
    padding = draw(st.tuples(*[st.integers(0, 3)] * 2))
    layer = nn.Conv2d(
        groups * draw(st.integers(1, 5)),
        groups * draw(st.integers(1, 9)),
        kernel,
        stride=draw(st.tuples(*[st.integers(1, 3)] * 2)),
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
    )
    least = [max(1, dilation * (k - 1) + 1 - 2 * p) for k, p in zip(kernel, padding, strict=True)]
    size = [n + draw(st.integers(0, 12)) for n in least]
    kept = draw(st.sampled_from([0, 0.02, 0.1, 0.5, 1]))
    return sparse(layer, kept), size, draw(st.integers(1, 20)), draw(st.booleans())


@given(st.data())
def test_any_convolution_equals_pytorch(data):
    """conv2d for any kernel, stride, padding, dilation, groups, batch and sparsity."""
    layer, size, batch, relu = data.draw(convolutions())
    isa = data.draw(st.sampled_from([isa for isa in ISAS if usable(isa)]))
    model = nn.Sequential(layer, nn.ReLU() if relu else nn.Identity())
    images = torch.randn(
        batch, layer.in_channels, *size, generator=torch.Generator().manual_seed(1)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(kernels.VARIABLE, isa)
        compiled = inference.compile(model, images.shape[1:])
        assert compiled.library.isa == isa
        for operation in compiled.network.operations:
            if operation.settings["groups"] == 1:
                operation.settings["dense"] = data.draw(st.booleans())
        assert difference(model, images, compiled) < TOLERANCE


class Residual(nn.Module):
    """Blocks whose fusions differ: before and after activation, shared values, an input reused."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.two = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.down = nn.Conv2d(8, 8, 1, stride=2)
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        start = self.one(x)
        before = torch.relu(self.norm(start))  # start is used again, so this is not folded
        inside = self.norm2(self.two(before)) + start
        twice = inside + inside
        after = torch.sigmoid(self.down(twice)) * self.pool(before)
        joined = torch.cat([after, self.down(twice).clamp(-1, 1)], 1)
        left, right = joined.chunk(2, 1)
        return self.head((left + right).mean((2, 3)))


def test_fusions_and_pytorch_operations(isa):
    model = sparse(Residual(), 0.5)
    for batch in (1, 2, 5, 33):
        assert difference(model, torch.randn(batch, 3, 9, 11)) < TOLERANCE


NETWORKS = [
    *(("resnet8", 16), ("resnet18", 16), ("resnet20", 16), ("wrn20", 8)),
    ("torchvision.resnet18", 40),
    *(("torchvision.resnet50", 33), ("torchvision.mobilenet_v2", 33)),
    pytest.param("torchvision.vgg11_bn", 32, marks=pytest.mark.slow),
]


class InPlace(nn.Module):
    """Later operations read the values that in-place ones have changed."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (nn.Conv2d(c, 4, 3, padding=1) for c in (3, 4))
        self.relu, self.silu, self.same = (
            nn.ReLU(inplace=True),
            nn.SiLU(inplace=True),
            nn.Identity(),
        )

    def forward(self, images):
        x = self.first(images)
        same = self.same(x)
        y = self.second(x) + self.second(self.relu(x)) + same
        y += x
        z = self.second(y)
        functional.relu(z, True)
        y.mul_(2)
        w = self.second(z) + y
        self.silu(w)
        return (self.second(w) - w).mean((2, 3))


def test_values_that_are_changed_in_place_equal_pytorch(isa):
    assert difference(InPlace().eval(), torch.randn(5, 3, 8, 8)) < TOLERANCE


class Misnamed(nn.Module):
    """Layers that have the names of methods."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 8, 3), nn.LeakyReLU(0.2)
        self.flatten, self.contiguous, self.mean = nn.Softmax(1), nn.SiLU(), nn.AvgPool2d(2)

    def forward(self, images):
        return self.mean(self.contiguous(self.flatten(self.relu(self.conv(images)))))


class Moved(nn.Module):
    """Values moved along an axis by an index, and a sum with a flattened one as second."""

    def __init__(self, axis):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 8 * 8 * 8)
        self.axis = axis
        self.register_buffer("index", torch.arange(8).flip(0))

    def forward(self, images):
        x = torch.index_select(self.conv(images), self.axis, self.index)
        x = torch.index_select(input=x, dim=self.axis, index=self.index).relu()
        x = torch.index_select(x, index=self.index, dim=self.axis)
        return self.linear(x.mean((2, 3))) + torch.flatten(x, 1)


@pytest.mark.parametrize("model", [Misnamed(), *map(Moved, (1, 2, -1))])
def test_functions_are_told_apart_by_their_arguments(model):
    assert difference(model.eval(), torch.randn(5, 3, 8, 8)) < TOLERANCE


def test_a_network_whose_compiled_one_differs_is_refused():
    def part_in_place(self, x):
        x.view(x.size(0), -1).relu_()
        return self.own_conv(x)

    model = Model(part_in_place)
    model.own_conv = nn.Conv2d(4, 4, 3)
    hooked = Model(lambda _, x: x)
    hooked.conv.register_forward_hook(lambda _module, _inputs, output: 2 * output)
    torch.manual_seed(0)
    probable = nn.Sequential(nn.Conv2d(3, 1000, 8), nn.Flatten(), nn.Softmax(1))
    probable[0].register_forward_hook(lambda _module, _inputs, output: -output)
    for wrong in (model, hooked, probable):
        with pytest.raises(UserError, match=r"outputs differ from the network's by .* leave out"):
            inference.compile(wrong, SMALL)


@pytest.mark.parametrize(("name", "size"), NETWORKS)
def test_networks_equal_pytorch(name, size):
    torch.manual_seed(0)
    model = sparse(build(name, 10), 0.1)
    compiled = inference.compile(model, (3, size, size))
    assert {operation.kind for operation in compiled.network.operations} <= {
        *("conv", "affine", "pool", "concat")
    }
    for batch in (1, 18):
        assert difference(model, torch.randn(batch, 3, size, size), compiled) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("googlenet", "densenet121", "inception_v3", "shufflenet_v2_x0_5", "squeezenet1_1"),
        *("efficientnet_b0", "mobilenet_v3_small", "regnet_y_400mf", "convnext_tiny", "alexnet"),
    ],
)
def test_networks_with_other_operations_equal_pytorch(name):
    torch.manual_seed(0)
    model = sparse(build(f"torchvision.{name}", 10), 0.2)
    assert difference(model, torch.randn(17, 3, 80, 80)) < TOLERANCE


@pytest.mark.parametrize("pool", [
    nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(3, 2, 1),
    nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), nn.AdaptiveAvgPool2d((2, 3)),
    nn.AdaptiveAvgPool2d(1), nn.AvgPool2d((2, 3), divisor_override=5),
])  # fmt: skip
def test_pooling_equals_pytorch(pool):
    for batch in (1, 16):
        assert difference(nn.Sequential(pool), torch.randn(batch, 3, 7, 10)) < TOLERANCE


@pytest.mark.parametrize("kept", [0.0, 1.0])
def test_all_or_no_weights(kept, isa):
    model = sparse(build("resnet8", 10), kept)
    assert difference(model, torch.randn(17, 3, 12, 12)) < TOLERANCE


def test_filters_without_weights(isa):
    """A dead filter's output is its bias."""
    layer = nn.Conv2d(4, 7, 3, padding=1)
    with torch.no_grad():
        layer.weight[1:6] = 0
    for batch in (1, 16):
        assert difference(nn.Sequential(layer), torch.randn(batch, 4, 6, 6)) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet8", 12),
        ("wrn20", 12),
        pytest.param("torchvision.mobilenet_v2", 32, marks=pytest.mark.slow),  # channels selected
        pytest.param("torchvision.resnext50_32x4d", 32, marks=pytest.mark.slow),
    ],
)
def test_a_network_without_its_pruned_filters_is_saved_and_equals_pytorch(name, size, tmp_path):
    model = randomised(build(name, 10))
    pruned, _ = prune_filters(checkpoint_of(model), model, 0.7)
    small = shrink(loaded(model, pruned).eval(), kept_filters(model, pruned.masks))
    assert any(node.target in BY_INDEX for node in small.graph.nodes)
    whole = nn.Sequential(nn.Identity(), small)  # as part of another network
    inference.save(inference.compile(whole, (3, size, size)), tmp_path / "net")
    compiled = inference.load(tmp_path / "net")
    for batch in (1, 18):
        assert difference(small, torch.randn(batch, 3, size, size), compiled) < TOLERANCE


def test_an_output_depends_on_its_image_only(isa):
    """Within the tolerance: other sizes of blocks sum in another order. No image: no output."""
    model = sparse(build("resnet8", 10), 0.1)
    compiled = inference.compile(model, (3, 16, 16))
    images = torch.randn(37, 3, 16, 16)
    together, alone = compiled(images), torch.cat([compiled(image[None]) for image in images])
    assert (together - alone).abs().max() < TOLERANCE * together.abs().max()
    images[0] = float("nan")
    assert torch.equal(compiled(images)[1:], together[1:])
    assert compiled(images[:0]).shape == (0, 10)


def test_threads_change_no_bit_of_equal_blocks():
    model = sparse(build("resnet8", 10), 0.1)
    one, two = (inference.compile(model, (3, 16, 16), threads=n) for n in (1, 2))
    images = torch.randn(64, 3, 16, 16)
    assert torch.equal(one(images), two(images))


@given(st.integers(1, 200), st.integers(1, 5))
def test_blocks_cover_the_batch_once(images, threads):
    blocks = list(split(images, threads))
    assert [start for start, _, _ in blocks] == list(np.cumsum([0, *(n for _, n, _ in blocks)]))[
        :-1
    ]
    assert sum(count for _, count, _ in blocks) == images
    assert all(count <= size <= 16 and size & (size - 1) == 0 for _, count, size in blocks)
    assert max(count for _, count, _ in blocks) <= 2 * -(-images // threads)


def test_saved_network_has_the_same_bits(tmp_path):
    model = sparse(build("resnet8", 10), 0.1)
    compiled = inference.compile(model, (3, 16, 16))
    inference.save(compiled, tmp_path / "network.safetensors")
    images = torch.randn(19, 3, 16, 16)
    assert torch.equal(inference.load(tmp_path / "network.safetensors")(images), compiled(images))
    dense = sum(4 * p.numel() for p in model.parameters())
    assert (tmp_path / "network.safetensors").stat().st_size < 0.3 * dense


def test_network_with_pytorch_operations_is_not_saved(tmp_path):
    compiled = inference.compile(Residual().eval(), (3, 8, 8))
    with pytest.raises(UserError, match="calls PyTorch for 'sigmoid'"):
        inference.save(compiled, tmp_path / "network.safetensors")
    assert not list(tmp_path.iterdir())


def test_paths_may_be_text(tmp_path):
    compiled, path = inference.compile(EYE, SMALL), str(tmp_path / "network.safetensors")
    inference.save(compiled, path)
    images = torch.randn(2, *SMALL)
    assert torch.equal(inference.load(path)(images), compiled(images))


def test_open_bounds_are_saved(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardtanh(0.1, float("inf")))
    inference.save(inference.compile(model, SMALL), tmp_path / "network")
    loaded = inference.load(tmp_path / "network")
    assert difference(model, torch.randn(2, *SMALL), loaded) < TOLERANCE


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_saved(tmp_path, value):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    with torch.no_grad():
        model[0].weight[1, 2, 0, 0] = value
    compiled = inference.compile(model, SMALL)
    with pytest.raises(UserError, match="not written because the weight of '_1' holds NaN or inf"):
        inference.save(compiled, tmp_path / "network")
    assert not list(tmp_path.iterdir())


def test_a_changed_bit_is_noticed(tmp_path):
    """In any tensor or in the header, where no other check would notice it."""
    path = tmp_path / "network"
    inference.save(inference.compile(nn.Sequential(nn.Conv2d(3, 4, 3)), SMALL), path)
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    shape = whole.index(b'\\"low\\": null')  # becomes another key
    for place in (start, (start + len(whole)) // 2, len(whole) - 1, shape + 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UserError, match="is truncated or not"):
            inference.load(path)
    path.write_bytes(whole)
    inference.load(path)


def edit(header, path):
    """Change a saved network's header at one place."""
    *keys, (last, value) = path
    place = header
    for key in keys:
        place = place[key]
    place[last] = value


@pytest.mark.parametrize("path", [
    ["operations", 0, "settings", ("padding", [9, 9])],
    ["operations", 0, "settings", ("stride", [0, 1])],
    ["operations", 1, ("inputs", ["nothing"])],
    ["operations", 3, ("kind", "torch")],
    ["operations", -1, ("inputs", ["input"])],
    ["shapes", ("input", [3, 4000, 4000, 4])],
    [("output", "nothing")],
    ["operations", -2, "settings", ("windows", [[0], [400], [0], [400]])],
    ["operations", -2, "settings", ("windows", [[2**32 - 5], [4], [0], [4]])],
    ["operations", -2, "settings", ("windows", [[1e20], [4], [0], [4]])],
    ["operations", 0, "settings", ("stride", [2**32, 1])],
    ["operations", 0, "arrays", "weight", (1, [-1, -1, 3, 3])],
    ["operations", (0, "text")],
    ["operations", 0, ("arrays", [])],
    [("shapes", [])],
])  # fmt: skip
def test_file_whose_shapes_do_not_fit_is_refused(tmp_path, path):
    """It would read or write memory outside of the network."""
    compiled = inference.compile(build("resnet8", 10).eval(), (3, 16, 16))
    inference.save(compiled, tmp_path / "good.safetensors")
    tensors, metadata = read(tmp_path / "good.safetensors")
    ((key, text),) = metadata.items()
    header = json.loads(text)
    del header[DIGEST]  # as in older files, which are read too
    save_tensors(tmp_path / "old.safetensors", tensors, {key: json.dumps(header)})
    inference.load(tmp_path / "old.safetensors")
    edit(header, path)
    save_tensors(tmp_path / "bad.safetensors", tensors, {key: json.dumps(header)})
    with pytest.raises(UserError, match=r"bad\.safetensors is truncated or not"):
        inference.load(tmp_path / "bad.safetensors")


def test_other_files_are_refused(tmp_path):
    file, tensors = tmp_path / "other.safetensors", {"a": torch.ones(1)}
    for metadata, sentence in (
        ({}, "no compiled network"),
        ({FORMAT: '{"version": 99}'}, "has version 99, this code reads 1"),
        ({FORMAT: "no JSON"}, "is truncated or not"),
        ({FORMAT: "[]"}, "is truncated or not"),
        ({FORMAT: "[" * 100_000}, "is truncated or not"),
    ):
        save_tensors(file, tensors, metadata)
        with pytest.raises(UserError, match=sentence):
            inference.load(file)


def test_layer_that_int32_cannot_address_is_refused():
    read = Reading(False, 0, np.zeros((1, 1), np.int64), 2**24, 1, 1, 1, False)
    weight = np.ones(
        (4, 40, 1, 1), np.float32
    )  # the last channel begins 39 * 64 MiB from the first
    with pytest.raises(UserError, match="more than 2 GiB"):
        sparse_rows(weight, 1, read, 40)
    with pytest.raises(UserError, match="more than 2 GiB"):
        dense_rows(weight, read, 40)


def test_images_of_another_size_are_refused():
    compiled = inference.compile(build("resnet8", 10), (3, 16, 16))
    for images in (torch.zeros(1, 3, 15, 16), torch.zeros(1, 3, 16, 16).double(),
                   torch.zeros(1, 3, 16, 16, device="meta"), torch.zeros(3, 16, 16), None,
                   np.zeros((1, 3, 16, 16), np.float32)):  # fmt: skip
        with pytest.raises(UserError, match=r"must be float32 \[B, 3, 16, 16\]"):
            compiled(images)


class Model(nn.Module):
    """A network of any forward pass, which counts its calls in a buffer."""

    def __init__(self, forward):
        super().__init__()
        self.conv, self.own = nn.Conv2d(3, 4, 3), forward
        self.norm = nn.BatchNorm2d(4, track_running_stats=False)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images):
        self.calls += 1
        self.calls = self.calls + 1
        return self.own(self, self.conv(images))


class TwoInputs(nn.Module):
    def forward(self, images, mask=None):
        return images.mean((2, 3)) if mask is None else mask


SMALL = (3, 8, 8)
EYE = Model(lambda _, x: x.mean((2, 3)))


@pytest.mark.parametrize(("model", "shape", "sentence"), [
    *((EYE, shape, r"the shape of an image is .* but must be \[C, H, W\], three whole numbers >= 1")
      for shape in ((16, 16), (1, 3, 8, 8), (3, 0, 8), (3, -1, 8), (3, 8.0, 8), "abc", 8, None)),
    (EYE, (4, 8, 8), r"Model cannot take images of shape \[4, 8, 8\] \(.*to have 3 channels, but"),
    (EYE, (3, 2, 2), "Kernel size can't be greater than actual input size.*pass the shape of its"),
    (EYE, (3, 10**6, 10**6), r"cannot take images of shape \[3, 1000000, 1000000\] "),
    (nn.Sequential(nn.Conv1d(3, 4, 3)), SMALL, r"cannot take images of shape \[3, 8, 8\] \(Expect"),
    *((build("resnet8", 10).to(kind), SMALL, rf"'conv1.weight' of the network is torch.{name}, but")
      for kind, name in ((torch.float16, "float16 on cpu"), (torch.float64, "float64 on cpu"),
                         ("meta", "float32 on meta"))),
    (nn.Sequential(nn.LazyConv2d(4, 3)), SMALL, "'0.weight' has no shape yet: call the network"),
    (None, SMALL, "the network is a NoneType: pass an nn.Module"),
    (TwoInputs(), SMALL, r"forward takes 2 inputs \(images, mask\), but must take images alone"),
    (Model(lambda _, x: (x, x)), SMALL, "returns a tuple, but must return one float32 tensor with"),
    (Model(lambda _, x: {"logits": x}), SMALL, "returns a dict, but must return one float32 ten"),
    (Model(lambda _, x: x.mean((2, 3)).argmax(1)), SMALL, r"returns torch.int64 \[2\] for 2 im"),
    (Model(lambda _, x: x.reshape(-1, 4)), SMALL, r"returns torch.float32 \[72, 4\] for 2 images"),
    (Model(lambda self, x: self.norm(x)), SMALL, "the layer 'norm' normalises with the statistics"),
    (Model(lambda _, x: functional.batch_norm(x, None, None, training=True)), SMALL,
     "the layer 'batch_norm' normalises with the statistics of the batch in evaluation mode too"),
    (Model(lambda _, x: functional.batch_norm(x, None, None, None, None, True)), SMALL, "'batch_"),
])  # fmt: skip
def test_network_that_cannot_be_compiled_is_refused(model, shape, sentence, capfd):
    """In a sentence, with nothing else on standard error."""
    with pytest.raises(UserError, match=sentence):
        inference.compile(model, shape)
    assert capfd.readouterr() == ("", "")


def test_fixed_statistics_are_compiled():
    mean, var = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    model = Model(lambda _, x: functional.batch_norm(x, mean, var)).eval()
    compiled = inference.compile(model, SMALL)
    assert difference(model, torch.randn(3, *SMALL), compiled) < TOLERANCE


def test_statistics_that_inference_mode_made_are_compiled():
    """They cannot be written to."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    with torch.inference_mode():
        model[1].running_mean = model[1].running_mean + 1
    assert difference(model, torch.randn(3, *SMALL)) < TOLERANCE


def test_compilation_leaves_the_network_as_it_was():
    for model in (Model(lambda _, x: x), Model(lambda self, x: self.norm(x))):
        model.norm.eval()
        calls = model.calls
        with suppress(UserError):
            inference.compile(model, SMALL)
        assert (model.training, model.conv.training, model.norm.training) == (True, True, False)
        assert model.calls is calls
        assert calls == 0
        assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", None])
def test_wrong_threads_are_refused(tmp_path, threads):
    inference.save(inference.compile(EYE, SMALL), tmp_path / "network")
    for make in (lambda: inference.compile(EYE, SMALL, threads),
                 lambda: inference.load(tmp_path / "network", threads)):  # fmt: skip
        with pytest.raises(
            UserError, match=f"threads is {threads!r}, but must be a whole number >"
        ):
            make()


def kinds(compiled):
    return Counter(operation.kind for operation in compiled.network.operations)


@pytest.mark.parametrize(("name", "expected", "bounded", "sums"), [
    ("resnet18", {"conv": 21, "pool": 1}, 17, 8),  # the classifier is a convolution
    ("wrn20", {"conv": 23, "affine": 10, "pool": 1}, 19, 9),  # BatchNorm before convolutions
])  # fmt: skip
def test_batchnorm_relu_and_additions_are_fused(name, expected, bounded, sums):
    """Nothing is left of them but BatchNorm of values that are used elsewhere too."""
    compiled = inference.compile(build(name, 10), (3, 16, 16))
    operations = compiled.network.operations
    assert kinds(compiled) == expected
    assert sum(operation.settings.get("low") == 0 for operation in operations) == bounded
    assert sum(len(operation.inputs) == 2 for operation in operations) == sums


def test_each_layer_is_computed_as_the_table_says(monkeypatch):
    """By its own shape and density, and this CPU's instruction set; grouped layers sparsely."""
    layers = [costs.Layer(3, 1, 4, 4, 6, 6), costs.Layer(1, 1, 4, 4, 6, 6)]
    rows = [row for layer, dense in zip(layers, (30, 60), strict=True)
            for isa, factor in (("scalar", 1), ("avx512", 1000))
            for row in rows_of(layer, lambda kept: 100 * kept, dense * factor, isa)]  # fmt: skip
    monkeypatch.setattr(costs, "load", lambda: costs.table(rows))
    monkeypatch.setenv(kernels.VARIABLE, "scalar")
    cases = [(3, 10, 1, False), (3, 50, 1, True), (1, 50, 1, False), (1, 75, 1, True),
             (3, 100, 2, False)]  # kernel, kept weights of 100, groups; dense  # fmt: skip
    convolutions = []
    for kernel, kept, groups, _ in cases:
        layer = nn.Conv2d(4, 4, kernel, padding=kernel // 2, groups=groups)
        with torch.no_grad():
            layer.weight.view(-1)[round(kept / 100 * layer.weight.numel()) :] = 0
        convolutions.append(layer)
    compiled = inference.compile(nn.Sequential(*convolutions), (4, 6, 6))
    chosen = [operation.settings["dense"] for operation in compiled.network.operations]
    assert chosen == [dense for *_, dense in cases]


def test_without_a_compiler_one_warning_and_equal_outputs(tmp_path, monkeypatch):
    model = sparse(Residual(), 0.3)
    images = torch.randn(3, 3, 8, 8)
    monkeypatch.setenv("CC", str(tmp_path / "no-such-compiler"))
    with pytest.warns(UserWarning, match="install gcc or clang") as caught:
        compiled = inference.compile(model, (3, 8, 8))
    assert len(caught) == 1
    assert compiled.library is None
    assert difference(model, images, compiled) < TOLERANCE
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inference.compile(model, (3, 8, 8))


def test_failing_compiler_gives_one_warning(tmp_path, monkeypatch):
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\n[ $1 = --version ] || { echo wrong >&2; exit 1; }\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    with pytest.warns(UserWarning, match=r"cannot compile sparse_conv\.c \(wrong\)"):
        assert kernels.library() is None


def test_compiler_may_be_a_command_with_words(monkeypatch):
    """CC="gcc -m64" or "ccache gcc", as for make."""
    words = [shutil.which("env"), "cc", "-DOF_MINE"]
    assert kernels._compiler("env cc -DOF_MINE") == words
    monkeypatch.setenv("CC", "env cc -DOF_MINE")
    assert kernels.library() is not None


def test_cache_that_cannot_be_written_to_names_its_variable(monkeypatch):
    monkeypatch.setenv(kernels.CACHE_VARIABLE, "/proc/nope")
    with pytest.warns(UserWarning, match="/proc/nope.*set SMS_INFERENCE_CACHE to another folder"):
        assert kernels.library() is None


def test_without_a_home_the_kernels_are_compiled_for_one_process(monkeypatch, source):
    """As in a container whose user has no entry in /etc/passwd."""

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    for variable in ("XDG_CACHE_HOME", kernels.CACHE_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr(kernels, "_library", kernels._library.__wrapped__)
    assert kernels.library() is not None


def test_unknown_instruction_set_is_refused(monkeypatch):
    monkeypatch.setenv(kernels.VARIABLE, "mmx")
    with pytest.raises(UserError, match="SMS_INFERENCE_ISA is 'mmx' but must be one of scalar"):
        inference.compile(build("resnet8", 10), (3, 8, 8))


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Use a short source file instead of the kernels: it takes no second to compile."""
    path = tmp_path / "short.c"
    path.write_text("void run(void) {}\n")
    monkeypatch.setattr(kernels, "SOURCE", path)


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_damaged_library_is_built_again(tmp_path, source, damage):
    compiler, tmp_path = kernels._compiler(None), tmp_path / "cache"
    path = kernels.built("scalar", compiler, tmp_path)
    content = path.read_bytes()
    changed = content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]
    path.write_bytes({"cut": content[:3000], "changed": changed, "empty": b""}[damage])
    assert kernels.built("scalar", compiler, tmp_path) == path
    assert kernels._whole(path)
    assert list(tmp_path.iterdir()) == [path]


def test_two_compilations_at_once(tmp_path, source):
    compiler, tmp_path, paths = kernels._compiler(None), tmp_path / "cache", []
    work = [
        threading.Thread(target=lambda: paths.append(kernels.built("scalar", compiler, tmp_path)))
        for _ in range(2)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert paths[0] == paths[1]
    assert list(tmp_path.iterdir()) == [paths[0]]
    assert kernels._whole(paths[0])


def test_whole_library_is_not_built_again(tmp_path, source):
    compiler, tmp_path = kernels._compiler(None), tmp_path / "cache"
    path = kernels.built("scalar", compiler, tmp_path)
    before = path.stat().st_mtime_ns
    assert kernels.built("scalar", compiler, tmp_path).stat().st_mtime_ns == before


def test_model_keeps_its_mode_and_weights():
    model = build("resnet8", 10).train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inference.compile(model, (3, 8, 8))
    assert all(module.training for module in model.modules())
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_untraceable_network_is_refused():
    class Depends(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(UserError, match="cannot be traced"):
        inference.compile(Depends(), (3, 8, 8))
