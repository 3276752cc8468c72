"""The severity constants of CIFAR-C and ImageNet-C: one row a corruption, one entry a severity.

Lengths are in pixels and intensities in [0, 1], unless a note says otherwise. CIFAR-C was made for
32 x 32 images and ImageNet-C for 224 x 224. Constants are not scaled to other sizes: those that are
fractions of the image (elastic transform, pixelate, zoom) grow with it, and those in pixels (blurs,
motion, glass, snow's smear, frost's crystals, spatter's drops) have a stronger effect on smaller
images, as in the public packages. CIFAR-C's constants are from its authors' script; ImageNet-C's
are those of the public packages, whose elastic_transform is weaker than the original benchmark's.

Source: Hendrycks & Dietterich 2019, Benchmarking Neural Network Robustness to Common Corruptions
and Perturbations; Michaelis et al. 2019, Benchmarking Robustness in Object Detection.
"""

from typing import Any

SEVERITIES = (1, 2, 3, 4, 5)

NAMES_15 = (
    "gaussian_noise", "shot_noise", "impulse_noise",
    "defocus_blur", "glass_blur", "motion_blur", "zoom_blur",
    "snow", "frost", "fog", "brightness",
    "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
NAMES_19 = (*NAMES_15, "speckle_noise", "gaussian_blur", "spatter", "saturate")

ARCHIVES = ("noise", "blur", "weather", "digital", "extra")  # the archives of ImageNet-C
BENCHMARKS = {"cifar": "CIFAR-C", "imagenet": "ImageNet-C"}
OFFICIAL = (
    'the records "CIFAR-10-C", "CIFAR-100-C" and "ImageNet-C" by Hendrycks & Dietterich on '
    "zenodo.org, licence CC BY 4.0"
)

CIFAR: dict[str, tuple[Any, ...]] = {
    # standard deviation
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    # photons at full white
    "shot_noise": (500, 250, 100, 75, 50),
    # fraction of the values replaced
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
    # standard deviation at full white
    "speckle_noise": (0.06, 0.1, 0.12, 0.16, 0.2),
    # sigma
    "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1),
    # sigma, reach, rounds
    "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    # radius, sigma that softens the disk's edge
    "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    # radius, sigma
    "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    # zoom factors: from 1 up to the first, excluded, in steps of the second
    "zoom_blur": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    # mean and deviation of the flakes, zoom, threshold, smear's radius and sigma, image's weight
    "snow": (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9), (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    # weight of the image, weight of the ice, photograph pixels a pixel, number of photographs
    "frost": (
        (1, 0.2, 5, 5), (1, 0.3, 5, 5), (0.9, 0.4, 5, 5), (0.85, 0.4, 5, 5), (0.75, 0.45, 5, 5),
    ),
    # strength, decay
    "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    # added value
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    # fraction of the contrast kept
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    # factor and addend of the saturation
    "saturate": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    # quality
    "jpeg_compression": (80, 65, 58, 50, 40),
    # fraction of the resolution kept
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    # shift, its sigma, and jitter of three corners, as fractions of the side
    "elastic_transform": (
        (0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03),
    ),
    # mean, deviation, sigma and threshold of the liquid; its strength (or edge's sigma); mud
    "spatter": (
        (0.62, 0.1, 0.7, 0.7, 0.5, False), (0.65, 0.1, 0.8, 0.7, 0.5, False),
        (0.65, 0.3, 1, 0.69, 0.5, False), (0.65, 0.1, 0.7, 0.69, 0.6, True),
        (0.65, 0.1, 0.5, 0.68, 0.6, True),
    ),
}  # fmt: skip

IMAGENET: dict[str, tuple[Any, ...]] = {
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    "shot_noise": (60, 25, 12, 5, 3),
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
    "speckle_noise": (0.15, 0.2, 0.35, 0.45, 0.6),
    "gaussian_blur": (1, 2, 3, 4, 6),
    "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "zoom_blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    "snow": (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7), (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    "frost": (
        (1, 0.4, 1, 6), (0.8, 0.6, 1, 6), (0.7, 0.7, 1, 6), (0.65, 0.7, 1, 6), (0.6, 0.75, 1, 6),
    ),
    "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    "jpeg_compression": (25, 18, 15, 10, 7),
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
    "elastic_transform": (
        (0.0625, 0.01, 0), (0.08125, 0.01, 0), (0.10625, 0.01, 0), (0.125, 0.01, 0),
        (0.15, 0.01, 0),
    ),
    "spatter": (
        (0.65, 0.3, 4, 0.69, 0.6, False), (0.65, 0.3, 3, 0.68, 0.6, False),
        (0.65, 0.3, 2, 0.68, 0.5, False), (0.65, 0.3, 1, 0.65, 1.5, True),
        (0.67, 0.4, 1, 0.65, 1.5, True),
    ),
}  # fmt: skip

TABLES = {"cifar": CIFAR, "imagenet": IMAGENET}
