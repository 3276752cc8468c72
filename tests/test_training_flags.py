"""Training flags: one table gives the parser, the planner's commands and the settings."""

import subprocess
import sys
from argparse import ArgumentParser
from dataclasses import MISSING, fields

import pytest

from pipeline.config.schema import Augmentation as AugmentationKeys
from pipeline.config.schema import Pretrain
from pipeline.stagekit.training_flags import add_training_flags, settings
from pipeline.train.settings import (
    Augmentation,
    Settings,
    field_values,
    flag_name,
    flag_values,
    training_options,
)

ALWAYS = ["--epochs", "1", "--seed", "0"]
DEFAULTS = {"batch_size": 16, "weight_decay": 0.0} | {
    option.name: option.default for option in training_options() if option.default is not MISSING
}
OTHERS = {
    "batch_size": 3,
    "weight_decay": 0.25,
    "label_smoothing": 0.1,
    "clip_norm": 2.0,
    "precision": "bf16",
    "compile": True,
    "deterministic": False,
    "plain_batchnorm": True,
    "crop_padding": 4,
    "flip": True,
    "rotation": 15.0,
    "resized_crop": 0.08,
}


def parsed(values: dict) -> Settings:
    """Return the settings of a stage that the planner tells ``values``."""
    words = [*ALWAYS]
    for name, value in flag_values(values).items():
        words.append(f"--{name.replace('_', '-')}")
        words += [] if value is True else [str(value)]
    parser = ArgumentParser()
    add_training_flags(parser)
    return settings(parser.parse_args(words))


def test_every_setting_reaches_the_stage_as_the_planner_means_it():
    """All at once, and each alone over the defaults."""
    assert OTHERS.keys() == DEFAULTS.keys()
    for changes in (OTHERS, *({name: value} for name, value in OTHERS.items())):
        values = DEFAULTS | changes
        result = parsed(values)
        for name, value in values.items():
            assert getattr(result, name, getattr(result.augmentation, name, None)) == value, name


def test_the_planner_leaves_defaults_out_in_the_order_of_the_commands():
    assert flag_values(DEFAULTS) == {"batch_size": 16, "weight_decay": 0.0}
    assert list(flag_values(OTHERS)) == [
        *("batch_size", "weight_decay", "label_smoothing", "clip_norm", "precision"),
        *("compile", "nondeterministic", "plain_batchnorm"),
        *("crop_padding", "flip", "rotation", "resized_crop"),
    ]


def test_every_flag_is_a_key_of_the_parameters_with_the_same_default():
    keys = Pretrain.model_fields | AugmentationKeys.model_fields
    for option in training_options():
        key = keys[option.name]
        assert key.is_required() == (option.default is MISSING), option.name
        assert key.is_required() or key.default == option.default, option.name


def test_every_field_is_a_flag_or_set_by_the_stage():
    flagged = {option.name for option in training_options()}
    owned = {field.name for owner in (Settings, Augmentation) for field in fields(owner)}
    assert owned - flagged == {"momentum", "augmentation", "graph"}


@pytest.mark.parametrize("given", [False, True])
def test_a_switch_that_is_on_is_turned_off_by_its_flag(given):
    names = {option.name: flag_name(option) for option in training_options(Settings)}
    assert names["deterministic"] == "nondeterministic"
    flags = dict.fromkeys(names.values(), 1) | {"nondeterministic": given}
    assert field_values(Settings, flags)["deterministic"] is not given


def test_the_planner_reads_the_table_without_torch():
    run = "import pipeline.train.settings, sys; print('torch' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=True)
    assert output.stdout == "False\n"
