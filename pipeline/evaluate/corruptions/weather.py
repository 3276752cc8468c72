"""Weather corruptions: snow, frost, fog and brightness."""

import numpy as np
from numpy.random import Generator
from skimage.color import hsv2rgb, rgb2hsv

from pipeline.evaluate.corruptions.filters import Images, luminance, quantise, smear, unit, zoomed
from pipeline.evaluate.corruptions.textures import ice, plasma


def snow(
    images: Images, constants: tuple[float, float, float, float, int, float, float], rng: Generator
) -> Images:
    """Whiten the image and add smeared flakes, and the same flakes rotated by 180 degrees."""
    mean, deviation, zoom, threshold, radius, sigma, weight = constants
    x = unit(images)
    flakes = zoomed(rng.normal(mean, deviation, (*images.shape[:3], 1)), zoom)
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
    flakes = smear(flakes, radius, sigma, rng.uniform(-135, -45, len(images)))
    flakes = np.round(flakes * 255) / 255
    white = weight * x + (1 - weight) * np.maximum(x, luminance(x) * 1.5 + 0.5)
    return quantise(white + flakes + flakes[:, ::-1, ::-1])


def frost(images: Images, constants: tuple[float, float, int, int], rng: Generator) -> Images:
    """Blend the image with ice: weight x + opacity ice.

    The benchmarks crop the ice from six photographs of unclear licence. Here it is generated with
    their colours, contrast and spectrum (textures.py), without files or seams.
    """
    weight, opacity, scale, kinds = constants
    n, height, width, channels = images.shape
    layer = ice((n, height, width), scale, kinds, rng)
    return quantise(
        weight * unit(images) + opacity * (layer if channels == 3 else luminance(layer))
    )


def fog(images: Images, constants: tuple[float, float], rng: Generator) -> Images:
    """Add a plasma fractal and rescale by the brightest value, to stay in [0, 1]."""
    strength, decay = constants
    x = unit(images)
    n, height, width, _ = images.shape
    side = 1 << (max(height, width) - 1).bit_length()
    layer = plasma(n, side, decay, rng)[:, :height, :width, None]
    brightest = x.max(axis=(1, 2, 3), keepdims=True)
    return quantise((x + strength * layer) * brightest / (brightest + strength))


def brightness(images: Images, amount: float, _: Generator) -> Images:
    """Add ``amount`` to the value channel of hue, saturation and value."""
    x = unit(images)
    if images.shape[-1] == 1:
        return quantise(x + amount)
    colours = rgb2hsv(x)
    colours[..., 2] = np.clip(colours[..., 2] + amount, 0, 1)
    return quantise(hsv2rgb(colours))
