"""Constants against literal tables, transcribed from the papers and the benchmarks' scripts."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import registry
from pipeline.config.experiment import load
from pipeline.data import imagenet
from pipeline.evaluate.corruptions.constants import NAMES_19, TABLES
from pipeline.plan.declared import declared, paper_methods
from pipeline.plan.studies import length, schedule, sparsity, subgroups
from pipeline.report.paper.lookup import paper_table
from pipeline.schedules.pretrain_lr import pretrain_rates
from pipeline.sparsify.config import SparsifyConfig
from pipeline.train.retrain_options import RetrainOptions
from pipeline.train.settings import Settings
from tests.test_params import edited

RECIPES = Path(__file__).parents[1] / "recipes"

# Hendrycks & Dietterich 2019: make_cifar_c.py of github.com/hendrycks/robustness.
CIFAR_C: dict[str, list[Any]] = {
    "gaussian_noise": [0.04, 0.06, 0.08, 0.09, 0.10],
    "shot_noise": [500, 250, 100, 75, 50],
    "impulse_noise": [0.01, 0.02, 0.03, 0.05, 0.07],
    "speckle_noise": [0.06, 0.1, 0.12, 0.16, 0.2],
    "gaussian_blur": [0.4, 0.6, 0.7, 0.8, 1],
    "glass_blur": [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)],
    "defocus_blur": [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],
    "motion_blur": [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)],
    "zoom_blur": [(1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)],
    "snow": [
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ],
    "frost": [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)],
    "fog": [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)],
    "brightness": [0.05, 0.1, 0.15, 0.2, 0.3],
    "contrast": [0.75, 0.5, 0.4, 0.3, 0.15],
    "saturate": [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)],
    "jpeg_compression": [80, 65, 58, 50, 40],
    "pixelate": [0.95, 0.9, 0.85, 0.75, 0.65],
    "elastic_transform": [
        (0, 0, 0.08),
        (0.05, 0.2, 0.07),
        (0.08, 0.06, 0.06),
        (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03),
    ],
    "spatter": [
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ],
}

# Michaelis et al. 2019: corruptions.py of the package imagecorruptions. elastic_transform has
# alpha * 0.005 of the height for the shift, with alpha = 250 * (0.05, 0.065, 0.085, 0.1, 0.12).
IMAGENET_C: dict[str, list[Any]] = {
    "gaussian_noise": [0.08, 0.12, 0.18, 0.26, 0.38],
    "shot_noise": [60, 25, 12, 5, 3],
    "impulse_noise": [0.03, 0.06, 0.09, 0.17, 0.27],
    "speckle_noise": [0.15, 0.2, 0.35, 0.45, 0.6],
    "gaussian_blur": [1, 2, 3, 4, 6],
    "glass_blur": [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)],
    "defocus_blur": [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)],
    "motion_blur": [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)],
    "zoom_blur": [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)],
    "snow": [
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ],
    "frost": [(1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)],
    "fog": [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)],
    "brightness": [0.1, 0.2, 0.3, 0.4, 0.5],
    "contrast": [0.4, 0.3, 0.2, 0.1, 0.05],
    "saturate": [(0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)],
    "jpeg_compression": [25, 18, 15, 10, 7],
    "pixelate": [0.6, 0.5, 0.4, 0.3, 0.25],
    "elastic_transform": [
        (250 * weight * 0.005, 0.01, 0) for weight in (0.05, 0.065, 0.085, 0.1, 0.12)
    ],
    "spatter": [
        (0.65, 0.3, 4, 0.69, 0.6, 0),
        (0.65, 0.3, 3, 0.68, 0.6, 0),
        (0.65, 0.3, 2, 0.68, 0.5, 0),
        (0.65, 0.3, 1, 0.65, 1.5, 1),
        (0.67, 0.4, 1, 0.65, 1.5, 1),
    ],
}


@pytest.mark.parametrize("name", NAMES_19)
@pytest.mark.parametrize(("table", "published"), [("cifar", CIFAR_C), ("imagenet", IMAGENET_C)])
def test_severities_are_those_of_the_benchmark(table, published, name):
    constants = TABLES[table][name]
    if name == "frost":  # the ice is made here, by two constants of ours
        constants = [values[:2] for values in constants]
    for values, expected in zip(constants, published[name], strict=True):
        assert values == pytest.approx(expected, rel=1e-12)


# Sparse Model Soups, Table 3: epochs, batch size, weight decay, and the learning rate as
# (last epoch, rate) or "linear from"; a rate None warms up to the next one, linearly from 0.
TABLE_3: dict[str, tuple[int, int, float, Any]] = {
    "cifar10_resnet18": (200, 128, 5e-4, [(90, 0.1), (180, 0.01), (200, 0.001)]),
    "celeba_resnet18": (100, 256, 1e-5, 0.1),
    "cifar100_wrn20": (200, 128, 2e-4, 0.1),
    "imagenet_resnet50": (90, 256, 1e-4, 0.1),
    "imagenet_maxvit": (
        *(200, 256, 1e-5),
        [(20, None), (60, 0.2), (120, 0.02), (160, 0.002), (200, 0.0002)],
    ),
    "cityscapes_pspnet": (
        *(300, 12, 1e-5),
        [(20, None), (100, 0.1), (200, 0.01), (270, 0.001), (290, 0.0001), (300, 0.00001)],
    ),
    "wmt16_t5small": (5, 16, 1e-5, [(1, None), (2, 0.1), (3, 0.01), (4, 0.001), (5, 0.0001)]),
}


def published_rates(epochs: int, steps: int, schedule: Any) -> list[float]:
    """Return the rate of every step of Table 3, with ``steps`` in each epoch."""
    if isinstance(schedule, float):
        return [schedule * (1 - step / (epochs * steps)) for step in range(epochs * steps)]
    rates: list[float] = []
    for number, (end, rate) in enumerate(schedule):
        length = end * steps - len(rates)
        peak = schedule[number + 1][1] if rate is None else rate
        rates += [peak * (i + 1) / length if rate is None else rate for i in range(length)]
    return rates


@pytest.mark.parametrize("recipe", TABLE_3)
def test_recipes_pretrain_as_table_3_says(tmp_path, recipe):
    epochs, batch_size, weight_decay, schedule = TABLE_3[recipe]
    section = load(edited(tmp_path, recipe=recipe)).pretrain
    assert (section.epochs, section.batch_size) == (epochs, batch_size)
    assert section.weight_decay == weight_decay
    rates = pretrain_rates(
        section.schedule,
        epochs * 7,
        section.learning_rate,
        milestones=section.milestones,
        warmup=section.warmup,
    )
    assert rates == pytest.approx(published_rates(epochs, 7, schedule), rel=1e-12)


# Sparse Model Soups, captions of Tables 1, 5, 9, 10 and 15: epochs and schedule of retraining,
# number of phases, and a target sparsity.
RETRAINING = {
    "cifar10_resnet18": (20, "ALLR", 3, 0.98),
    "cifar100_wrn20": (10, "ALLR", 3, 0.98),
    "imagenet_resnet50": (10, "ALLR", 3, 0.9),
    "celeba_resnet18": (20, "ALLR", 1, 0.9),
    "cityscapes_pspnet": (50, "LLR", 1, 0.9),
    "wmt16_t5small": (2, "ALLR", 1, 0.5),
}

# Appendix B.2.1: the eight values of each setting that was varied.
GRIDS = {
    "imagenet_resnet50": {
        "weight_decay": {4e-5, 6e-5, 8e-5, 1e-4, 1.2e-4, 1.4e-4, 1.6e-4, 1.8e-4},
        "epochs": {2, 3, 4, 5, 6, 7, 8, 9},
        "learning_rate": {2e-2, 4e-2, 6e-2, 8e-2, 1e-1, 1.2e-1, 1.4e-1, 1.6e-1},
    },
    "cifar100_wrn20": {
        "weight_decay": {1e-4, 2e-4, 3e-4, 4e-4, 5e-4, 6e-4, 7e-4, 8e-4},
        "epochs": {6, 7, 8, 9, 10, 11, 12, 13},
        "learning_rate": {6e-2, 7e-2, 8e-2, 9e-2, 1e-1, 1.1e-1, 1.2e-1, 1.3e-1},
    },
}


@pytest.mark.parametrize("recipe", RETRAINING)
def test_recipes_retrain_as_the_papers_tables_say(recipe):
    values = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())
    retrain = (values["retrain"]["epochs"], values["retrain"]["schedule"])
    assert (*retrain, values["phases"], values["target_sparsity"]) == RETRAINING[recipe]


@pytest.mark.parametrize("recipe", GRIDS)
def test_varied_settings_are_those_of_appendix_b(recipe):
    """The first value of a grid is the recipe's own, which the grid of the paper may lack."""
    section = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())
    values = section["pretrain"] | {"epochs": section["retrain"]["epochs"]}
    for key, published in GRIDS[recipe].items():
        grid = section["retrain"]["grids"][key]
        assert grid[0] == values[key]
        assert set(grid) == published | {values[key]}


def test_defaults_are_those_of_their_papers():
    config = SparsifyConfig()
    assert config.mask_interval == 16  # Lin et al. 2020, section 5.1
    assert (config.rigl_alpha, config.rigl_end) == (0.3, 0.75)  # Evci et al. 2020, section 4.1
    assert Settings(1, 0.0).momentum == 0.9  # Sparse Model Soups, appendix A.1
    # Of published weights of ImageNet.
    assert imagenet.MEAN == (0.485, 0.456, 0.406)
    assert imagenet.STD == (0.229, 0.224, 0.225)
    assert RetrainOptions.rho == 0.05  # Foret et al. 2021, section 3.1


def test_studies_have_the_grids_of_the_paper():
    lengths = [1, 2, 5, 10, 20]  # appendix C.1.2
    assert (length.Grid().epochs, schedule.Grid().epochs) == (lengths, lengths)
    assert schedule.Grid().schedules == ["LRW", "SLR", "CLR", "LLR", "ALLR"]  # C.1.1
    assert subgroups.Grid().sparsities == [0.9, 0.95, 0.97]  # Table 15
    table_18 = {0.8, 0.9, 0.92, 0.94, 0.96, 0.98, 0.99, 0.995}
    assert set(sparsity.Grid().sparsities) == table_18 | {0.998, 0.999}  # beyond the paper
    assert {round(each / 100, 3) for each in paper_table("l2_distance")["sparsity"]} <= table_18


@pytest.mark.parametrize("name", registry.names("plan/studies"))
def test_default_grids_are_within_their_own_bounds(name):
    module = registry.load("plan/studies", name, "studies")
    if hasattr(module, "Grid"):
        module.Grid.model_validate(module.Grid().model_dump())


@pytest.mark.parametrize("table", ["pruning_during_training", "more_phases", "swa"])
def test_every_method_of_a_table_is_one_of_ours(table):
    names = {declared(method).paper[table] for method in paper_methods(table)}
    assert names == set(paper_table(table)["method"])


def test_methods_of_the_tables_of_pruning_after_training():
    soups = ["sms_uniform", "sms_greedy"]
    assert paper_methods("prune_after_training") == ["imp", "imp_mx", "imp_reprune", *soups]
