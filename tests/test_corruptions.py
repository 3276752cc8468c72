"""The 19 corruptions: their laws, and the same images as the public package's at its constants."""

import importlib.util
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image
from scipy import ndimage
from sklearn.datasets import load_sample_image

from pipeline.errors import UserError
from pipeline.evaluate.corruptions import blur, elastic, filters, generate, textures, weather
from pipeline.evaluate.corruptions.constants import CIFAR, NAMES_15, NAMES_19, SEVERITIES, TABLES
from pipeline.evaluate.corruptions.generate import CORRUPTIONS, constants_for
from pipeline.evaluate.corruptions.spatter import edges, equalised

FIXED = {
    "defocus_blur",
    "zoom_blur",
    "brightness",
    "contrast",
    "pixelate",
    "jpeg_compression",
    "gaussian_blur",
    "saturate",
}
GREY = np.full((4, 64, 64, 3), 100, np.uint8)


def rng(seed=0):
    return np.random.default_rng(seed)


def photographs(side, n=3):
    """Different square pieces of scikit-learn's photograph, uint8 [N, side, side, 3]."""
    china = load_sample_image("china.jpg")
    corners = [(150 + 30 * i, 100 + 60 * i) for i in range(n)]
    return np.stack([china[top : top + side, left : left + side] for top, left in corners])


# --- what holds for every corruption ---------------------------------------------------------


def test_both_tables_have_five_severities_of_all_nineteen():
    assert len(NAMES_15) == 15
    assert NAMES_19[:15] == NAMES_15
    assert set(CORRUPTIONS) == set(NAMES_19)
    for table in TABLES.values():
        assert set(table) == set(NAMES_19)
        assert {len(values) for values in table.values()} == {len(SEVERITIES)}


@pytest.mark.parametrize("name", NAMES_19)
@settings(max_examples=12)
@given(
    st.tuples(st.integers(0, 3), st.integers(8, 40), st.integers(8, 40), st.sampled_from([1, 3])),
    st.sampled_from(SEVERITIES),
    st.sampled_from(sorted(TABLES)),
)
def test_any_shape_comes_back_and_the_input_stays(name, shape, severity, table):
    images = rng(1).integers(0, 256, shape, np.uint8)
    before = images.copy()
    corrupted = generate.generate(images, name, severity, table)
    assert corrupted.shape == shape
    assert corrupted.dtype == np.uint8
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("name", NAMES_19)
def test_black_and_white_images_are_no_special_case(name, value):
    for severity in SEVERITIES:  # warnings are errors: no division by zero
        generate.generate(np.full((2, 16, 16, 3), value, np.uint8), name, severity, "cifar")


@pytest.mark.parametrize("name", NAMES_19)
def test_a_seed_names_the_bits(name):
    images = photographs(32)
    one, again, other = (generate.generate(images, name, 4, "cifar", seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any() == (name not in FIXED)
    assert (one != images).any()


@pytest.mark.parametrize("name", sorted(set(NAMES_19) - FIXED))
def test_each_image_and_severity_draws_its_own(name):
    piece = photographs(32, 1)
    twins = generate.generate(np.concatenate([piece, piece]), name, 5, "cifar")
    assert (twins[0] != twins[1]).any()


def test_no_two_corruptions_or_severities_share_their_noise():
    noise = [
        generate.generate(GREY, name, severity, "cifar").ravel().astype(float)
        for name, severity in [("gaussian_noise", 1), ("gaussian_noise", 5), ("speckle_noise", 1)]
    ]
    assert np.abs(np.corrcoef(noise) - np.eye(3)).max() < 0.03


@pytest.mark.parametrize("name", sorted(FIXED))
def test_a_batch_is_its_images_however_it_is_cut(name, monkeypatch):
    images = photographs(24, 5)
    monkeypatch.setattr(generate, "CHUNK", 2 * 24 * 24)
    batch = generate.generate(images, name, 3, "cifar")
    single = [generate.generate(image[None], name, 3, "cifar")[0] for image in images]
    np.testing.assert_array_equal(batch, single)


@pytest.mark.parametrize("table", sorted(TABLES))
@pytest.mark.parametrize(
    "name",
    ["gaussian_noise", "shot_noise", "impulse_noise", "gaussian_blur", "brightness", "contrast"],
)
def test_a_higher_severity_changes_more(name, table):
    images = photographs(64)
    changes = [
        np.abs(generate.generate(images, name, s, table).astype(int) - images).mean()
        for s in SEVERITIES
    ]
    assert changes == sorted(changes)


@pytest.mark.parametrize("name", sorted(FIXED - {"jpeg_compression"}))
def test_a_grey_channel_is_treated_as_grey_in_colour(name):
    grey = photographs(32)[..., :1]
    for severity in SEVERITIES:
        one = generate.generate(grey, name, severity, "cifar").astype(int)
        three = generate.generate(grey.repeat(3, axis=-1), name, severity, "cifar")
        assert np.abs(one - three @ filters.LUMA[:, None]).max() <= 1.01


# --- what each does -----------------------------------------------------------------------------


def test_gaussian_noise_has_its_deviation():
    noise = filters.unit(CORRUPTIONS["gaussian_noise"](GREY, 0.1, rng())) - 100 / 255
    assert noise.std() == pytest.approx(0.1, rel=0.02)
    assert noise.mean() == pytest.approx(-0.5 / 255, abs=0.002)  # bytes are truncated


def test_shot_noise_has_poisson_s_variance():
    noise = filters.unit(CORRUPTIONS["shot_noise"](GREY, 75, rng()))
    assert noise.var() == pytest.approx(100 / 255 / 75, rel=0.03)


def test_speckle_noise_grows_with_the_signal():
    dark, bright = (
        CORRUPTIONS["speckle_noise"](np.full_like(GREY, v), 0.1, rng()) for v in (50, 150)
    )
    assert bright.std() / dark.std() == pytest.approx(3, rel=0.03)


def test_impulse_noise_strikes_its_share_evenly():
    struck = CORRUPTIONS["impulse_noise"](GREY, 0.2, rng())
    assert (struck != 100).mean() == pytest.approx(0.2, abs=0.01)
    assert (struck == 255).sum() / (struck == 0).sum() == pytest.approx(1, abs=0.06)
    assert set(np.unique(struck)) == {0, 100, 255}


def test_contrast_keeps_each_channel_s_mean_and_shrinks_its_deviation():
    x = photographs(64)
    y = CORRUPTIONS["contrast"](x, 0.3, rng())
    np.testing.assert_allclose(y.mean((1, 2)), x.mean((1, 2)) - 0.5, atol=0.2)
    np.testing.assert_allclose(y.std((1, 2)), 0.3 * x.std((1, 2)), rtol=0.02)


def test_fog_keeps_within_the_brightest_value():
    x = photographs(32)
    for strength in (0.2, 1.5, 3):
        fogged = weather.fog(x, (strength, 2), rng())
        assert (fogged.max((1, 2, 3)) <= x.max((1, 2, 3))).all()


@given(st.integers(0, 7), st.floats(1.2, 4), st.integers(0, 100))
def test_plasma_fills_the_range_and_is_rough_by_its_decay(log_side, decay, seed):
    clouds = textures.plasma(2, 2**log_side, decay, rng(seed))
    assert clouds.shape == (2, 2**log_side, 2**log_side)
    if log_side:
        assert (clouds.min((1, 2)) == 0).all()
        assert (clouds.max((1, 2)) == 1).all()


@pytest.mark.parametrize("size", [8, 31, 32, 50])
@pytest.mark.parametrize("factor", [1, 1.01, 1.17, 1.25, 2, 4.5])
def test_zoom_is_scipy_s_of_the_middle(size, factor):
    x = rng().random((2, size, size + 3, 3))
    crops = [int(np.ceil(side / factor)) for side in (size, size + 3)]
    top, left = (size - crops[0]) // 2, (size + 3 - crops[1]) // 2
    middle = x[:, top : top + crops[0], left : left + crops[1]]
    # grid_mode off, and the edge's value instead of black where rounding leaves the middle
    expected = ndimage.zoom(middle, (1, factor, factor, 1), order=1, mode="nearest")
    found = filters.zoomed(x, factor)
    np.testing.assert_allclose(found, expected[:, :size, : size + 3], atol=1e-12)


@pytest.mark.parametrize(("angle", "step"), [(0, (0, 1)), (90, (1, 0)), (-90, (-1, 0)), (45, None)])
def test_smear_spreads_a_point_along_its_angle(angle, step):
    x = np.zeros((1, 41, 41, 1))
    x[0, 20, 20] = 1
    spread = filters.smear(x, 4, 2.0, np.array([angle]))[0, :, :, 0]
    assert spread.sum() == pytest.approx(1)
    weights = np.exp(-(np.arange(9) ** 2) / 8) / np.exp(-(np.arange(9) ** 2) / 8).sum()
    if step is None:  # diagonal: rows and columns move together
        assert np.count_nonzero(spread) == np.count_nonzero(np.diag(spread)) > 5
    else:
        for i, weight in enumerate(weights):
            assert spread[20 - i * step[0], 20 - i * step[1]] == pytest.approx(weight)


def scattered_one_by_one(images, reach, offsets):
    """Scatter as the benchmarks walk: last pixel first, each taking a neighbour's value."""
    out = images.copy()
    n, height, width, _ = images.shape
    for k in range(n):
        for h in range(height - reach, reach, -1):
            for w in range(width - reach, reach, -1):
                dy, dx = offsets[:, k, h - reach - 1, w - reach - 1]
                out[k, h, w] = out[k, h + dy, w + dx]
    return out


@given(st.integers(1, 4), st.integers(8, 20), st.integers(8, 20), st.integers(0, 1000))
def test_scatter_is_the_pixel_by_pixel_walk(reach, height, width, seed):
    images = rng(seed).integers(0, 256, (2, height, width, 3), np.uint8)
    rows, columns = height - 2 * reach, width - 2 * reach
    if rows <= 0 or columns <= 0:
        expected = images
    else:
        offsets = rng(seed).integers(-reach, reach, (2, 2, rows, columns))
        expected = scattered_one_by_one(images, reach, offsets)
    np.testing.assert_array_equal(blur._scatter(images, reach, rng(seed)), expected)


def test_elastic_transform_at_zero_is_the_image():
    x = photographs(32)
    found = elastic.elastic_transform(x, (0, 0, 0), rng())
    assert np.abs(found.astype(int) - x).max() <= 1


def test_elastic_transform_shifts_by_its_share_of_the_side():
    side = 64
    ramp = np.arange(side, dtype=np.uint8) * 3
    x = np.broadcast_to(ramp[None, None, :, None], (8, side, side, 3)).copy()
    y = elastic.elastic_transform(x, (0.05, 0, 0), rng()).astype(float)
    shift = ((y - x) / 3)[:, :, 8:-8, 0]  # uniform in [-3.2, 3.2] pixels
    assert np.abs(shift).max() <= 0.05 * side + 0.5
    assert shift.std() == pytest.approx(0.05 * side / np.sqrt(3), rel=0.05)


def test_the_random_affine_map_undoes_a_movement_of_three_corners():
    side, jitter = 33, 3.0
    rows, columns = elastic._affine((1, side, side), jitter, rng(5))
    moved = np.array([[27, 27], [27, 5], [5, 5]]) + rng(5).uniform(-jitter, jitter, (1, 3, 2))[0]
    for (x, y), corner in zip(moved, [[27, 27], [27, 5], [5, 5]], strict=True):
        found = [
            ndimage.map_coordinates(axis[0], [[y], [x]], order=1)[0] for axis in (columns, rows)
        ]
        np.testing.assert_allclose(found, corner, atol=1e-9)


@pytest.mark.parametrize("mud", [False, True])
def test_spatter_leaves_what_it_does_not_cover(mud):
    x = np.full((20, 32, 32, 3), 120, np.uint8)
    y = CORRUPTIONS["spatter"](x, (0.65, 0.3, 1, 0.69, 0.5, mud), rng())
    covered = (y != x).any(-1).mean()
    assert 0.05 < covered < 0.6
    assert (y >= x).all() != mud  # water only lights, mud only darkens
    assert (y <= x).all() == mud


def spectrum_slope(patches):
    """Slope of log power over log frequency, averaged over grey patches [N, S, S]."""
    side = patches.shape[1]
    window = np.hanning(side)[:, None] * np.hanning(side)
    flat = (patches - patches.mean((1, 2), keepdims=True)) * window
    power = (np.abs(np.fft.fft2(flat)) ** 2).mean(0)
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
    rings = np.arange(1, side // 2) / side
    ring = [power[np.abs(radius - r) < 0.5 / side].mean() for r in rings]
    return np.polyfit(np.log(rings), np.log(ring), 1)[0]


@pytest.mark.parametrize(("side", "scale", "kinds"), [(32, 5, 5), (128, 1, 6)])
def test_drawn_ice_looks_like_the_benchmarks_photographs(side, scale, kinds):
    spec = importlib.util.find_spec("imagecorruptions")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("imagecorruptions-imaug, which ships the photographs, is not installed")
    files = sorted((Path(spec.submodule_search_locations[0]) / "frost").iterdir())[:kinds]
    random, crops = rng(), []
    for file in files:
        picture = Image.open(file).convert("RGB")
        # CIFAR-C shrank them without smoothing first.
        small = picture.resize((picture.width // scale, picture.height // scale), Image.NEAREST)
        whole = np.asarray(small) / 255
        for _ in range(20):
            top = random.integers(whole.shape[0] - side)
            left = random.integers(whole.shape[1] - side)
            crops.append(whole[top : top + side, left : left + side])
    photographed, drawn = np.stack(crops), textures.ice((100, side, side), scale, kinds, random)
    grey = [patches @ filters.LUMA for patches in (photographed, drawn)]
    colours = [patches.mean((0, 1, 2)) for patches in (photographed, drawn)]
    np.testing.assert_allclose(colours[1], colours[0], atol=0.06)
    contrast = [patches.std((1, 2)).mean() for patches in grey]
    assert contrast[1] == pytest.approx(contrast[0], rel=0.25)
    light = [patches.mean((1, 2)).std() for patches in grey]
    assert light[1] == pytest.approx(light[0], rel=0.25)
    assert spectrum_slope(grey[1]) == pytest.approx(spectrum_slope(grey[0]), abs=0.45)


def test_ice_has_bright_crystals_and_patches_of_different_light():
    patches = textures.ice((200, 32, 32), 5, 1, rng()) @ filters.LUMA
    centred = patches - patches.mean((1, 2), keepdims=True)
    assert (centred**3).mean() / (centred**2).mean() ** 1.5 > 0.1
    assert patches.mean((1, 2)).std() == pytest.approx(
        textures.LIGHT * patches.std((1, 2)).mean(), rel=0.15
    )


# --- the public package, at ImageNet-C's constants -----------------------------------------------


class Drawn:
    """NumPy as the package sees it, but with our generator where it uses the global one."""

    def __init__(self, generator):
        self.random = self
        self._generator = generator

    def __getattr__(self, name):
        own = {"normal", "uniform", "poisson"}
        return getattr(self._generator if name in own else np, name)


@pytest.fixture(scope="module")
def package():
    return pytest.importorskip(
        "imagecorruptions.corruptions",
        reason="imagecorruptions-imaug (or a library that its OpenCV needs) is not installed",
        exc_type=ImportError,
    )


def difference(package, monkeypatch, name, severity, side):
    """Return |ours - the package's| of one photograph, both drawing the same numbers."""
    image = photographs(side, 1)
    with monkeypatch.context() as patch:
        patch.setattr(package, "np", Drawn(rng(3)))
        extra = {"seed": rng(3)} if name == "impulse_noise" else {}
        expected = getattr(package, name)(Image.fromarray(image[0]), severity, **extra)
    ours = CORRUPTIONS[name](image, TABLES["imagenet"][name][severity - 1], rng(3))
    return np.abs(ours[0].astype(int) - np.uint8(expected))


# Their float32 kernels and sums fall on the other side of a byte's edge now and then.
OFF_BY_ONE = {"motion_blur": 0.08, "snow": 0.01, "defocus_blur": 0.001}


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize(
    "name", [n for n in NAMES_19 if n not in {"frost", "glass_blur", "spatter"}]
)
def test_the_same_bytes_as_the_package(package, monkeypatch, name, severity):
    # The package zooms snow past the image's size before it smears it; 180 is a multiple of all
    # of its zooms, so that there is nothing past it.
    off = difference(package, monkeypatch, name, severity, 180 if name == "snow" else 96)
    assert off.max() <= (name in OFF_BY_ONE)
    assert (off > 0).mean() <= OFF_BY_ONE.get(name, 0)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_spatter_is_the_package_s_but_for_its_approximate_distances(package, monkeypatch, severity):
    off = difference(package, monkeypatch, "spatter", severity, 96)
    water = severity < 4  # lit by the distance to the edge, which OpenCV estimates to 4 %
    assert (off > 0).mean() <= (0.15 if water else 1e-3)
    assert off.mean() < (2 if water else 1e-3)


@pytest.mark.parametrize("sigma", [0.7, 1, 3])
def test_edges_and_equalisation_are_opencv_s(package, sigma):
    level = (filters.gaussian(rng().random((10, 40, 50)), sigma) * 255).astype(np.uint8)
    level[level < np.median(level)] = 0
    cv2 = package.cv2
    np.testing.assert_array_equal(edges(level), [cv2.Canny(one, 50, 150) > 0 for one in level])
    expected = np.stack([cv2.equalizeHist(one) for one in level]).astype(int)
    assert np.abs(equalised(level) - expected).max() <= 1


@pytest.mark.slow
def test_glass_blur_is_the_package_s_in_distribution(package):
    x = photographs(64, 1)
    for severity, values in zip(SEVERITIES, TABLES["imagenet"]["glass_blur"], strict=True):
        theirs = np.stack(
            [np.uint8(package.glass_blur(Image.fromarray(x[0]), severity, s)) for s in range(60)]
        )
        ours = blur.glass_blur(x.repeat(60, axis=0), values, rng())
        change = theirs.std(0).mean()
        assert ours.std(0).mean() == pytest.approx(change, rel=0.05)
        # The mean of 60 draws is known to change / sqrt(60) at each pixel, for either side.
        apart = np.abs(ours.mean(0) - theirs.mean(0)).mean()
        assert apart < 2 * change / np.sqrt(60)


@pytest.mark.slow
def test_the_package_s_swap_is_a_copy(package):
    """Pixels are lost and doubled, which no swapping could do: see blur._scatter."""
    image = np.stack([np.arange(400).reshape(20, 20)] * 3, axis=-1)
    walked = package._shuffle_pixels_njit_glass_blur(20, 20, image.copy(), (1.0, 1, 1), 0)
    assert len(np.unique(walked)) < 400


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("rain", 1, "cifar"), "'rain'"),
        (("fog", 0, "cifar"), "severity 0"),
        (("fog", 6, "cifar"), "severity 6"),
        (("fog", 1, "mnist"), "'mnist'"),
    ],
)
def test_what_does_not_exist_is_named(arguments, named):
    with pytest.raises(UserError, match=named):
        generate.generate(GREY, *arguments)


def test_images_too_small_to_corrupt_are_refused():
    with pytest.raises(UserError, match=r"7 x 9 .*data\.size"):
        generate.generate(np.zeros((1, 7, 9, 3), np.uint8), "fog", 1)


def test_images_of_other_channels_are_refused():
    with pytest.raises(UserError, match=r"images of 4 channels .* evaluate\.corruptions to none"):
        generate.generate(np.zeros((1, 9, 9, 4), np.uint8), "fog", 1)


@pytest.mark.parametrize("images", [GREY.astype(float), GREY[0]])
def test_other_arrays_are_refused(images):
    with pytest.raises(ValueError, match="not uint8"):
        generate.generate(images, "fog", 1)


@pytest.mark.parametrize(("side", "table"), [(8, "cifar"), (32, "cifar"), (33, "imagenet")])
def test_the_size_chooses_the_constants(side, table):
    assert constants_for(side) == table
    images = photographs(side, 1)
    np.testing.assert_array_equal(
        generate.generate(images, "contrast", 2), generate.generate(images, "contrast", 2, table)
    )
    assert CIFAR["contrast"] != TABLES["imagenet"]["contrast"]


@pytest.mark.parametrize("shape", [(40, 16), (16, 40)])
def test_the_longer_side_chooses_the_constants(shape):
    height, width = shape
    images = photographs(40, 1)[:, :height, :width]
    np.testing.assert_array_equal(
        generate.generate(images, "contrast", 2),
        generate.generate(images, "contrast", 2, "imagenet"),
    )
