"""Weather: what lies between the object and the lens, and the light."""

import numpy as np
from numpy.random import Generator
from skimage.color import hsv2rgb, rgb2hsv

from pipeline.evaluate.corruptions.filters import Images, luminance, quantise, smear, unit, zoomed
from pipeline.evaluate.corruptions.textures import ice, plasma


def snow(
    images: Images, constants: tuple[float, float, float, float, int, float, float], rng: Generator
) -> Images:
    """Whiten the image and let dragged flakes fall over it, and the same flakes turned round."""
    mean, deviation, zoom, threshold, radius, sigma, share = constants
    x = unit(images)
    flakes = zoomed(rng.normal(mean, deviation, (*images.shape[:3], 1)), zoom)
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
    flakes = smear(flakes, radius, sigma, rng.uniform(-135, -45, len(images)))
    flakes = np.round(flakes * 255) / 255
    white = share * x + (1 - share) * np.maximum(x, luminance(x) * 1.5 + 0.5)
    return quantise(white + flakes + flakes[:, ::-1, ::-1])


def frost(images: Images, constants: tuple[float, float, int, int], rng: Generator) -> Images:
    """Lay ice over the image: share x + opacity ice.

    The benchmarks crop the ice from six photographs of unclear licence; ours is drawn, with their
    colours, contrast and spectrum (textures.py), so that it needs no file and has no seams.
    """
    share, opacity, scale, kinds = constants
    n, height, width, channels = images.shape
    layer = ice((n, height, width), scale, kinds, rng)
    return quantise(share * unit(images) + opacity * (layer if channels == 3 else luminance(layer)))


def fog(images: Images, constants: tuple[float, float], rng: Generator) -> Images:
    """Add a plasma fractal and rescale by the brightest value, so that nothing overflows."""
    strength, decay = constants
    x = unit(images)
    n, height, width, _ = images.shape
    side = 1 << (max(height, width) - 1).bit_length()
    layer = plasma(n, side, decay, rng)[:, :height, :width, None]
    brightest = x.max(axis=(1, 2, 3), keepdims=True)
    return quantise((x + strength * layer) * brightest / (brightest + strength))


def brightness(images: Images, amount: float, _: Generator) -> Images:
    """Add to the value of hue, saturation and value: more daylight."""
    x = unit(images)
    if images.shape[-1] == 1:
        return quantise(x + amount)
    colours = rgb2hsv(x)
    colours[..., 2] = np.clip(colours[..., 2] + amount, 0, 1)
    return quantise(hsv2rgb(colours))
