"""Re-estimated BatchNorm statistics are averages over examples, whatever the batches."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from pipeline.errors import UserError
from pipeline.stagekit.model_folder import trained_meta
from pipeline.train.batchnorm import reestimate
from pipeline.train.predict import logits
from pipeline.train.settings import Augmentation, Settings

MEAN, STD = torch.tensor([0.4]), torch.tensor([0.3])


@pytest.fixture
def images() -> Tensor:
    return torch.randint(256, (70, 1, 6, 6), generator=seeded(), dtype=torch.uint8)


@pytest.fixture
def model() -> nn.Module:
    """Two BatchNorm layers with traces of training, with dropout before the second."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4, momentum=0.3),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(4, 5, 3),
        nn.BatchNorm2d(5, momentum=None),
        nn.Flatten(),
        nn.Linear(20, 3),
    )
    network(torch.randn(8, 1, 6, 6))
    return network


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def normalised(images: Tensor) -> Tensor:
    return (images.double() / 255 - MEAN.double()) / STD.double()


def statistics(model: nn.Module) -> list[Tensor]:
    return [value.clone() for name, value in model.named_buffers() if "running" in name]


def test_first_layer_in_one_batch_is_mean_and_variance_in_float64(model, images):
    convolution, norm = model[0], model[1]
    inputs = conv2d(normalised(images), convolution.weight.double(), convolution.bias.double())
    reestimate(model, images, MEAN, STD, batch_size=len(images))
    torch.testing.assert_close(
        norm.running_mean.double(), inputs.mean((0, 2, 3)), rtol=0, atol=1e-6
    )
    torch.testing.assert_close(norm.running_var.double(), inputs.var((0, 2, 3)), rtol=1e-5, atol=0)


@pytest.mark.parametrize("batch_size", [70, 69, 32, 7, 3])
def test_every_layer_averages_over_examples(model, images, batch_size):
    """Mean = sum(n_b m_b) / N and variance = sum(n_b v_b) / N, of what the layer saw."""
    seen: dict[nn.Module, list[Tensor]] = {model[1]: [], model[5]: []}
    for norm, inputs in seen.items():
        norm.register_forward_pre_hook(lambda _, args, to=inputs: to.append(args[0].double()))
    reestimate(model, images, MEAN, STD, batch_size=batch_size)
    for norm, batches in seen.items():
        weights = torch.tensor([len(batch) for batch in batches]).double() / len(images)
        assert weights.sum() == pytest.approx(1)
        assert max(map(len, batches)) <= batch_size
        means = torch.stack([batch.mean((0, 2, 3)) for batch in batches])
        variances = torch.stack([batch.var((0, 2, 3)) for batch in batches])
        torch.testing.assert_close(norm.running_mean.double(), weights @ means, rtol=0, atol=1e-5)
        torch.testing.assert_close(
            norm.running_var.double(), weights @ variances, rtol=1e-5, atol=0
        )


def test_the_mean_of_the_first_layer_does_not_know_the_batches(model, images):
    results = []
    for batch_size in (70, 32, 9):
        reestimate(model, images, MEAN, STD, batch_size=batch_size)
        results.append(model[1].running_mean.clone())
    torch.testing.assert_close(results[0], results[1])
    torch.testing.assert_close(results[0], results[2])


def test_a_set_stored_class_by_class_makes_no_one_sided_batches(model):
    images = torch.zeros(400, 1, 6, 6, dtype=torch.uint8)
    images[200:] = 255  # all variance lies between the classes
    total = conv2d(normalised(images), model[0].weight.double()).var((0, 2, 3))
    reestimate(model, images, MEAN, STD, batch_size=40)
    torch.testing.assert_close(model[1].running_var.double(), total, rtol=0.05, atol=0)


def test_images_are_augmented_as_in_training():
    """Of constant images, crops of 6 pixels at -1, 0 or 1 keep (5 + 6 + 5) / 18 a side."""
    model = nn.Sequential(nn.BatchNorm2d(1))
    white = torch.full((4000, 1, 6, 6), 255, dtype=torch.uint8)
    zero, one = torch.zeros(1), torch.ones(1)
    reestimate(model, white, zero, one, augmentation=Augmentation(crop_padding=1, flip=True))
    share = (16 / 18) ** 2
    assert model[0].running_mean.item() == pytest.approx(share, abs=0.01)
    assert model[0].running_var.item() == pytest.approx(share * (1 - share), abs=0.01)


def test_augmentation_has_draws_of_its_own_that_are_always_the_same(model, images):
    results, augmentation = [], Augmentation(crop_padding=2, flip=True, rotation=20.0)
    for seed in (1, 2):
        torch.manual_seed(seed)
        drawn = torch.get_rng_state()
        reestimate(model, images, MEAN, STD, 16, augmentation)
        assert torch.equal(torch.get_rng_state(), drawn)
        results.append(statistics(model))
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_a_network_remembers_the_augmentation_that_its_soups_are_measured_with():
    crops = Settings(8, 0.0, augmentation=Augmentation(crop_padding=4))
    meta = trained_meta({"network": "resnet8"}, crops)
    assert Augmentation(**meta["augmentation"]) == crops.augmentation
    for other in (Settings(8, 0.0), replace(crops, plain_batchnorm=True)):
        assert trained_meta(meta, other) == {"network": "resnet8"}


def test_every_call_of_a_layer_counts(images):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(1)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.norm(inputs) + self.norm(10 + inputs)

    model = Twice()
    reestimate(model, images, MEAN, STD, batch_size=10)
    expected = normalised(images).mean() + 5
    assert model.norm.running_mean.item() == pytest.approx(expected.item(), abs=1e-5)


def test_neither_dropout_nor_the_past_matters(model, images):
    reestimate(model, images, MEAN, STD, batch_size=16)
    expected = statistics(model)
    model[3].p = 0.0
    for buffer in model.buffers():
        buffer.fill_(77)
    torch.manual_seed(5)
    reestimate(model, images, MEAN, STD, batch_size=16)
    for value, before in zip(statistics(model), expected, strict=True):
        assert torch.equal(value, before)


def test_modes_momenta_and_weights_stay(model, images):
    model.train()
    model[1].eval()  # a frozen layer in a network in training
    modes = [module.training for module in model.modules()]
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    reestimate(model, images, MEAN, STD)
    assert [module.training for module in model.modules()] == modes
    assert (model[1].momentum, model[5].momentum) == (0.3, None)
    for parameter, before in zip(model.parameters(), weights, strict=True):
        assert torch.equal(parameter, before)
        assert parameter.grad is None


def test_a_last_example_alone_is_no_batch(images):
    """A batch of one would have no variance."""
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(36))
    model.append(nn.Linear(36, 2))
    reestimate(model, images[:65], MEAN, STD, batch_size=64)
    assert all(value.isfinite().all() for value in statistics(model))


def test_an_odd_number_of_examples_two_by_two_has_no_batch_of_one():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(1), nn.Flatten())
    photographs = torch.arange(3 * 16).view(3, 1, 4, 4).to(torch.uint8)
    reestimate(model, photographs, torch.zeros(1), torch.ones(1), batch_size=2)
    assert float(model[1].running_mean) == pytest.approx(float(photographs.double().mean() / 255))


def test_statistics_that_are_not_finite_are_not_stored(model, images):
    model[4].weight.data[2] = float("nan")
    before = statistics(model)
    with pytest.raises(UserError, match=r"BatchNorm '5' hold NaN or infinity"):
        reestimate(model, images, MEAN, STD)
    assert all(torch.equal(*pair) for pair in zip(statistics(model), before, strict=True))


def test_a_network_without_running_statistics_is_not_even_run(images):
    def refuse(*_: object) -> None:
        pytest.fail("the network was run")

    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(36, track_running_stats=False))
    model.append(nn.Linear(36, 2))
    model.register_forward_pre_hook(refuse)
    reestimate(model, images, MEAN, STD)


def test_logits_are_those_of_the_network_in_evaluation(model, images):
    model.eval()
    expected = model.double()(normalised(images))
    model.float().train()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    scores = logits(model, images, MEAN, STD, batch_size=32)
    torch.testing.assert_close(scores.double(), expected, rtol=1e-4, atol=1e-4)
    assert [module.training for module in model.modules()] == modes


def test_logits_may_be_constants_of_a_gradient(model, images):
    weight = torch.ones(1, requires_grad=True)
    (weight * logits(model, images, MEAN, STD)).sum().backward()
    assert weight.grad is not None
