"""Noise corruptions: independent errors of single values."""

import numpy as np
from numpy.random import Generator

from pipeline.evaluate.corruptions.filters import Images, quantise, unit


def gaussian_noise(images: Images, scale: float, rng: Generator) -> Images:
    """Add N(0, scale^2), like a sensor's electronic noise in low light."""
    return quantise(unit(images) + rng.normal(scale=scale, size=images.shape))


def shot_noise(images: Images, photons: float, rng: Generator) -> Images:
    """Draw Poisson(x photons) / photons, the noise of counted photons."""
    return quantise(rng.poisson(unit(images) * photons) / photons)


def impulse_noise(images: Images, amount: float, rng: Generator) -> Images:
    """Set the fraction ``amount`` of the values to black or white with equal probability."""
    replaced = rng.random(images.shape) <= amount
    white = rng.random(images.shape) <= 0.5
    return np.where(replaced, np.where(white, np.uint8(255), np.uint8(0)), images)


def speckle_noise(images: Images, scale: float, rng: Generator) -> Images:
    """Multiply by 1 + N(0, scale^2), noise proportional to the signal."""
    x = unit(images)
    return quantise(x + x * rng.normal(scale=scale, size=images.shape))
