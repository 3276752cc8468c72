"""Augmentation moves every pixel exactly where torchvision moves it."""

import torch
import torchvision.transforms.functional as tv
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.train.augment import apply, draw
from pipeline.train.settings import Augmentation

ALL = Augmentation(crop_padding=4, flip=True, rotation=15.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(*shape: int) -> Tensor:
    """Return images without a black pixel, so that whatever is filled in shows."""
    return torch.randint(1, 256, shape, generator=generator(), dtype=torch.uint8)


def augment(augmentation: Augmentation, images: Tensor, seed: int = 0) -> Tensor:
    return apply(augmentation, images, draw(augmentation, len(images), generator(seed)))


def by_torchvision(image: Tensor, padding: int, draws: list[float]) -> Tensor:
    """Crop, flip and turn one image as torchvision's PIL transforms do, given what they drew."""
    down, right, flip, angle = draws
    height, width = image.shape[1:]
    picture = tv.pad(tv.to_pil_image(image), padding)
    picture = tv.crop(picture, int(down), int(right), height, width)
    if flip:
        picture = tv.hflip(picture)
    return tv.pil_to_tensor(tv.rotate(picture, angle))


def test_equals_torchvision_on_the_same_draws():
    images = random_images(200, 3, 32, 32)
    draws = draw(ALL, 200, generator())
    expected = [
        by_torchvision(image, 4, drawn) for image, drawn in zip(images, draws.tolist(), strict=True)
    ]
    assert torch.equal(apply(ALL, images, draws), torch.stack(expected))


@settings(max_examples=150, deadline=None)
@given(
    channels=st.sampled_from([1, 3]),
    size=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    padding=st.integers(0, 3),
    offsets=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    flip=st.booleans(),
    angle=st.floats(-180, 180, width=32),
)
@example(1, (4, 4), 0, (0, 0), False, 90.0)
@example(3, (5, 5), 1, (0.5, 1), True, -90.0)
@example(1, (6, 6), 0, (0, 0), True, 180.0)
@example(1, (6, 6), 0, (0, 0), False, 0.0)
def test_equals_torchvision_at_any_size(channels, size, padding, offsets, flip, angle):
    image = random_images(1, channels, *size)
    draws = torch.tensor([[*(int(o * 2 * padding) for o in offsets), flip, angle]]).double()
    result = apply(Augmentation(padding, flip=True, rotation=180.0), image, draws)
    assert torch.equal(result[0], by_torchvision(image[0], padding, draws[0].tolist()))


def test_draws_cover_their_ranges_evenly():
    draws = draw(ALL, 20_000, generator())
    for offsets in draws[:, :2].unbind(1):
        assert offsets.unique().tolist() == list(range(9))
        assert abs(offsets.mean() - 4) < 0.1
    assert draws[:, 2].unique().tolist() == [0, 1]
    assert abs(draws[:, 2].mean() - 0.5) < 0.02
    assert draws[:, 3].min() >= -15
    assert draws[:, 3].max() <= 15
    assert abs(draws[:, 3].mean()) < 0.3
    assert abs(draws[:, 3].std() - 30 / 12**0.5) < 0.2  # the uniform distribution's


def test_a_generator_state_is_a_result():
    images = random_images(16, 1, 8, 8)
    first, again, other = (augment(ALL, images, seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_switching_one_off_leaves_the_others_as_they_were():
    whole = draw(ALL, 50, generator())
    part = draw(Augmentation(crop_padding=4, rotation=15.0), 50, generator())
    assert torch.equal(part[:, [0, 1, 3]], whole[:, [0, 1, 3]])
    assert not part[:, 2].any()


def test_nothing_asked_is_nothing_done():
    images = random_images(4, 3, 8, 8)
    assert torch.equal(augment(Augmentation(), images), images)


def test_the_images_given_stay_as_they_are():
    images = random_images(4, 3, 8, 8)
    before = images.clone()
    augment(ALL, images)
    assert torch.equal(images, before)
