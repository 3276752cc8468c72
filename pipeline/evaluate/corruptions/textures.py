"""Random textures for overlays: plasma fractals for fog, and ice for frost."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

# Of the benchmarks' six frost photographs: mean and deviation of red, green and blue, in bytes.
# The second and the third are the same picture.
PHOTOGRAPHS = np.array([
    [[78, 149, 166], [27, 17, 15]],
    [[201, 205, 214], [21, 22, 23]],
    [[201, 205, 214], [21, 22, 23]],
    [[138, 153, 165], [28, 28, 30]],
    [[112, 123, 135], [44, 43, 42]],
    [[71, 95, 105], [35, 43, 47]],
])  # fmt: skip
KNEE = 0.3  # cycles a photograph pixel, where the slope of their spectrum changes
NEEDLE = 4.0  # photograph pixels over which a crystal is straight
CRYSTALS = 3  # layers of crystals, each with its own direction
LIGHT = 0.4  # standard deviation of a patch's mean, in standard deviations of its pixels


def plasma(n: int, side: int, decay: float, rng: Generator) -> NDArray[np.float32]:
    """Return ``n`` plasma fractals [n, side, side] in [0, 1], by the diamond-square algorithm.

    Each round sets the centres of the squares, then of the diamonds, to the mean of their four
    corners plus uniform noise, whose amplitude is divided by ``decay`` each round. Edges wrap.

    Args:
        n: the number of fractals.
        side: a power of two, in pixels.
        decay: above 1; larger values give smoother fractals.
        rng: the source of randomness.

    Source: Fournier, Fussell & Carpenter 1982, Computer Rendering of Stochastic Models.
    """
    clouds = np.zeros((n, side, side), np.float32)
    step, amplitude = side, 100.0

    def perturbed(corners: NDArray[np.float32]) -> NDArray[np.float64]:
        return corners / 4 + amplitude * rng.uniform(-amplitude, amplitude, corners.shape)

    while step >= 2:
        half = step // 2
        corners = clouds[:, ::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=1)
        clouds[:, half::step, half::step] = perturbed(pairs + np.roll(pairs, -1, axis=2))
        centres = clouds[:, half::step, half::step]
        above = centres + np.roll(centres, 1, axis=1)
        clouds[:, ::step, half::step] = perturbed(above + (corners + np.roll(corners, -1, axis=2)))
        beside = centres + np.roll(centres, 1, axis=2)
        clouds[:, half::step, ::step] = perturbed(beside + (corners + np.roll(corners, -1, axis=1)))
        step, amplitude = half, amplitude / decay
    clouds -= clouds.min(axis=(1, 2), keepdims=True)
    highest = clouds.max(axis=(1, 2), keepdims=True)
    return (clouds / np.where(highest > 0, highest, 1)).astype(np.float32)


def ice(shape: tuple[int, int, int], scale: int, kinds: int, rng: Generator) -> NDArray[np.float64]:
    """Return patches of frost [N, H, W, 3] in [0, 1] with the photographs' colours and spectrum.

    Noise with the power spectrum 1 / (f (f + knee)) is smeared along a random direction into
    crystals, the maximum of three such layers is taken, and the result is scaled to the mean and
    deviation of one photograph.

    Args:
        shape: N, H, W.
        scale: photograph pixels for each pixel of the patch.
        kinds: the number of photographs to draw from, from the first.
        rng: the source of randomness.
    """
    n, height, width = shape
    rows, columns = np.fft.fftfreq(height)[:, None] / scale, np.fft.rfftfreq(width) / scale
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf
    direction = rng.uniform(0, np.pi, (n, CRYSTALS, 1, 1))
    along = rows * np.sin(direction) + columns * np.cos(direction)
    strength = np.exp(-((2 * np.pi * NEEDLE * along) ** 2) / 2) + 0.1
    strength = strength / np.sqrt(frequency * (frequency + KNEE))
    spectrum = np.fft.rfft2(rng.standard_normal((n, CRYSTALS, height, width)))
    layers = np.fft.irfft2(spectrum * strength, (height, width))
    layers /= layers.std(axis=(2, 3), keepdims=True)
    relief = layers.max(axis=1)
    relief = relief - relief.mean(axis=(1, 2), keepdims=True)
    relief /= relief.std(axis=(1, 2), keepdims=True)
    relief += LIGHT * rng.standard_normal((n, 1, 1))
    mean, deviation = np.moveaxis(PHOTOGRAPHS[rng.integers(kinds, size=n)], 1, 0) / 255
    patches = mean[:, None, None] + deviation[:, None, None] * relief[..., None]
    return np.asarray(np.clip(patches, 0, 1), np.float64)
