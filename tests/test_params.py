"""params.yaml: what is taken, and the sentence in which anything else is refused."""

import re
import shutil
from pathlib import Path
from typing import get_args

import pytest
import yaml

from pipeline import registry
from pipeline.config import experiment
from pipeline.config.experiment import RECIPES, load, recipes
from pipeline.config.schema import Retrain, Sparsify
from pipeline.config.validation import RENAMED
from pipeline.config.yaml_file import read
from pipeline.errors import UserError
from pipeline.plan.choices import choices
from pipeline.plan.studies import length
from pipeline.prune.pattern import STRUCTURES
from pipeline.repro import write_plan
from pipeline.run.dvc_files import Loader

ROOT = Path(__file__).parent.parent


def edited(tmp_path: Path, **changes: object) -> Path:
    """Write the project's params.yaml with ``changes``; ``a__b`` is the key b in the section a."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key, value in changes.items():
        *sections, last = key.split("__")
        target = params
        for section in sections:
            target = target[section]
        target[last] = value
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params))
    return path


def test_every_recipe_is_valid_with_the_projects_own_params(tmp_path):
    assert set(recipes()) >= {"digits", "cifar10_resnet18", "cifar100_wrn20", "image_folder"}
    for recipe in recipes():
        assert load(edited(tmp_path, recipe=recipe)).recipe == recipe


def test_null_comes_from_the_recipe_and_a_value_goes_over_it(tmp_path):
    assert load(edited(tmp_path)).retrain.epochs == 10
    assert load(edited(tmp_path, retrain__epochs=7)).retrain.epochs == 7


def test_official_corruptions_are_found_where_they_are_unpacked(tmp_path):
    path = edited(tmp_path, recipe="cifar10_resnet18")
    assert load(path).evaluate.corruptions_path is None
    (tmp_path / "data" / "CIFAR-10-C").mkdir(parents=True)
    assert load(path).evaluate.corruptions_path == "data/CIFAR-10-C"
    named = edited(tmp_path, recipe="cifar10_resnet18", evaluate__corruptions_path="elsewhere")
    assert load(named).evaluate.corruptions_path == "elsewhere"


@pytest.mark.parametrize(("schedule", "epochs"), [("ALLR", 0), ("LLR", 0), ("ALLR", 3)])
def test_allr_without_pretraining_says_that_it_is_llr(tmp_path, capsys, schedule, epochs):
    official = {"network__weights": "w.pt", "pretrain__epochs": epochs}
    edited(tmp_path, retrain__schedule=schedule, **official)
    (tmp_path / "stages").mkdir()
    write_plan(tmp_path)
    said = capsys.readouterr().err
    if (schedule, epochs) == ("ALLR", 0):
        assert said.startswith("warning: retrain.schedule is ALLR")
        assert "like LLR" in said
        assert len(said.splitlines()) == 1
    else:
        assert said == ""


def test_seeds_take_the_place_of_seed(tmp_path):
    assert load(edited(tmp_path, seed=4)).seeds == [4]
    assert load(edited(tmp_path, seed=4, seeds=[0, 1])).seeds == [0, 1]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("m", 0, ["m", "0", "in [1, 100]"]),
        ("m", "three", ["m", "'three'", "integer"]),
        ("m", True, ["m", "True", "integer"]),
        ("target_sparsity", 1.0, ["target_sparsity", "1.0", "in (0, 1)", "a fraction"]),
        ("target_sparsity", 95, ["target_sparsity", "95", "in (0, 1)", "0.95 prunes 95 %"]),
        ("phases", 0, ["phases", "0"]),
        ("seeds", [], ["seeds", "at least 1"]),
        ("seeds", [1, 1], ["seeds", "only once"]),
        ("seeds", 3, ["seeds is 3", "a list, such as [3]"]),
        ("seed", -1, ["seed is -1", "[0, 2147483648)"]),
        ("recipe", "mnist", ["recipe", "'mnist'", "digits"]),
        ("methods", ["smss"], ["methods", "'smss'", "imp_mx", "did you mean sms?"]),
        ("methods", ["sms", "sms"], ["methods", "only once"]),
        ("merge", ["uniform", "uniform"], ["merge", "only once"]),
        ("studies", ["length", "length"], ["studies", "only once"]),
        ("export", ["onnx", "onnx"], ["export", "only once"]),
        ("merge", ["median"], ["merge", "'median'", "distilled, greedy, learned"]),
        ("prune__criterion", "magnitud", ["prune.criterion", "'magnitud'", "magnitude"]),
        ("prune__allocation", "globl", ["prune.allocation", "'globl'", "global", "uniform"]),
        ("prune__structure", "filter", ["prune.structure", "'filter'", "'weights' or 'filters'"]),
        (
            "prune",
            {"structure": "filters", "allocation": "erk"},
            [
                "prune.structure is filters",
                "prune.criterion is magnitude",
                "prune.allocation is erk",
            ],
        ),
        ("retrain__schedule", "STEP", ["retrain.schedule", "'STEP'", "ALLR"]),
        ("retrain__epochs", 1.5, ["retrain.epochs", "1.5"]),
        ("retrain__values", [1.0], ["retrain.values", "retrain.vary is seed"]),
        ("network__name", "resnet9000", ["network.name", "resnet9000", "resnet8"]),
        ("pretrain__learning_rate", -0.1, ["pretrain.learning_rate", "-0.1", "greater than 0"]),
        ("retrain", "fast", ["retrain", "'fast'"]),
        ("retrain__values", [0], ["retrain.values.0 is 0", "greater than 0"]),
        ("pretrain__compile", "yes", ["pretrain.compile", "true or false"]),
        ("evaluate__corruptions", "some", ["evaluate.corruptions", "'some'", "'final'"]),
        ("data__size", {}, ["data.size is {}", "an integer"]),
        ("data__name", {"x": 3}, ["data.name is {'x': 3}", "text"]),
        ("network__weights", "a\nb.pt", ["network.weights is 'a\\nb.pt'", "printable"]),
        ("data__path", "data/${m}", ["data.path is 'data/${m}'", "without ${, which DVC would"]),
        ("evaluate__corruptions_path", "\x1b[2J", ["evaluate.corruptions_path", "printable"]),
    ],
)
def test_an_impossible_value_names_key_value_and_what_is_allowed(tmp_path, key, value, words):
    with pytest.raises(UserError) as error:
        load(edited(tmp_path, **{key: value}))
    sentence = str(error.value)
    assert all(word in sentence for word in words), sentence
    assert "\n" not in sentence


def test_varying_needs_a_value_for_every_candidate_but_the_first(tmp_path):
    varied = load(
        edited(tmp_path, retrain__vary="weight_decay", retrain__values=[5e-4, 1e-4, 1e-3])
    )
    assert varied.retrain_values() == [1e-4, 1e-3], "candidate 0 keeps the recipe's 5e-4"
    with pytest.raises(UserError, match=r"m = 3 needs 2"):
        load(edited(tmp_path, retrain__vary="weight_decay", retrain__values=[5e-4, 1e-4]))
    with pytest.raises(UserError, match="whole numbers"):
        load(edited(tmp_path, retrain__vary="epochs", retrain__values=[1.5, 2, 3]))
    with pytest.raises(UserError, match="only once"):
        load(edited(tmp_path, retrain__vary="weight_decay", retrain__values=[1e-3, 1e-3]))
    with pytest.raises(UserError, match=r"retrain.grids.epochs is \[7.5\], .* whole numbers"):
        load(edited(tmp_path, retrain__grids={"epochs": [7.5]}))
    with pytest.raises(UserError, match=r"retrain.grids.epochs is \[7.0, 7.0\], .* only once"):
        load(edited(tmp_path, retrain__grids={"epochs": [7, 7]}))


@pytest.mark.parametrize("text", ["mm: 3", "mm: null", "retrain: {epoch: 3}", "data: {x: null}"])
def test_an_unknown_key_is_refused_even_when_null(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(f"recipe: digits\nseed: 0\n{text}\n")
    key = next(iter(yaml.safe_load(text)))
    with pytest.raises(UserError, match=rf"params.yaml: the key {key}.* is unknown: use one of"):
        load(path)


def test_an_impossible_value_of_a_study_names_the_whole_key(tmp_path):
    params = load(edited(tmp_path, study={"length": {"epochs": [0]}}))
    with pytest.raises(UserError, match=r"^params.yaml: study.length.epochs.0 is 0, .* at least 1"):
        params.grid("length", length.Grid)
    params = load(edited(tmp_path, study={"length": {"epochs": [3, 5, 3]}}))
    with pytest.raises(UserError, match=r"study.length.epochs is \[3, 5, 3\], .* each only once"):
        params.grid("length", length.Grid)
    params = load(edited(tmp_path, study={"length": {"epochs": []}}))
    with pytest.raises(UserError, match=r"study.length.epochs is \[\], but must name at least one"):
        params.grid("length", length.Grid)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("retrain: {epoch: 3}", "did you mean retrain.epochs?"),
        ("epochs: 3", "did you mean pretrain.epochs or retrain.epochs or sparsify.epochs?"),
    ],
)
def test_the_key_that_may_be_meant_is_named(tmp_path, text, meant):
    path = tmp_path / "params.yaml"
    path.write_text(f"recipe: digits\nseed: 0\n{text}\n")
    with pytest.raises(UserError, match=re.escape(meant)):
        load(path)


def nested(key: str) -> dict[str, object]:
    """Return ``a.b`` as ``{"a": {"b": null}}``."""
    section, _, last = key.partition(".")
    return {section: {last: None} if last else None}


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
@pytest.mark.parametrize("where", ["params.yaml", "recipes/digits.yaml"])
def test_an_old_key_is_answered_with_its_new_name(tmp_path, monkeypatch, old, new, where):
    shutil.copytree(RECIPES, tmp_path / "recipes")
    monkeypatch.setattr(experiment, "RECIPES", tmp_path / "recipes")
    path = edited(tmp_path)
    values = yaml.safe_load((tmp_path / where).read_text())
    (tmp_path / where).write_text(yaml.safe_dump(values | nested(old)))
    with pytest.raises(UserError, match=rf"^{where}: .*{old} is now {new}\b.*: rename (it|them)$"):
        load(path)


def test_new_names_are_keys_and_old_ones_are_not():
    keys = Sparsify.model_fields.keys()
    for old, new in RENAMED.items():
        assert new == "sparsify" or new.removeprefix("sparsify.") in keys
        assert old.rpartition(".")[2] not in keys


def test_a_duplicate_key_is_refused(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("recipe: digits\nm: 3\nm: 5\n")
    with pytest.raises(UserError, match=r"the key m stands twice \(line 3\)"):
        load(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        (".5", 0.5),
        ("1.e3", 1000.0),
        ("012", 12),
        ("on", "on"),
        ("yes", "yes"),
        ("True", True),
        ("~", None),
        ("1:30", "1:30"),
    ],
)
def test_values_are_those_of_yaml_1_2(tmp_path, text, value):
    """By both parsers: that of settings, and the faster one of the graph and its lock file."""
    path = tmp_path / "params.yaml"
    path.write_text(f"key: {text}\n")
    assert repr(read(path, "params.yaml")["key"]) == repr(value)
    assert repr(yaml.load(path.read_bytes(), Loader=Loader)["key"]) == repr(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("m: 3\nphases 2\nseed: 1\n", "at line 3: could not find expected ':'"),
        ("methods: [sms, imp\nseed: 0\n", "in the entry that begins at line 1"),
        ("m: *x\n", "at line 1: found undefined alias"),
        ("prune: {structure: 2:4}\n", "at line 1: found unexpected ':'.*: quote the value with a"),
        ("m: \x00\n", "control characters are not allowed"),
    ],
)
def test_invalid_yaml_is_one_sentence_with_the_line(tmp_path, text, words):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=f"^params.yaml is not valid YAML.*{words}") as error:
        load(path)
    assert "\n" not in str(error.value)


def test_exponents_without_a_dot_are_numbers(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(
        (ROOT / "params.yaml").read_text().replace("weight_decay: null", "weight_decay: 1e-4")
    )
    assert load(path).pretrain.weight_decay == 1e-4


@pytest.mark.parametrize("text", ["- a list", "", "recipe: [", "just words"])
def test_no_mapping_is_refused(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"params\.yaml"):
        load(path)


def test_a_missing_file_says_where_to_run(tmp_path):
    with pytest.raises(UserError, match="is missing: run from the project's folder"):
        load(tmp_path / "params.yaml")


def test_modules_lists_the_files_a_room_offers():
    assert "digits" in registry.names("data")
    assert "base" not in registry.names("data")
    assert "global" in registry.names("prune/allocations")
    assert RECIPES.is_dir()


def test_every_name_that_a_key_takes_is_listed_with_a_line():
    listed = choices()
    for key, room in (("prune.criterion", "criteria"), ("prune.allocation", "allocations")):
        assert list(listed[key]) == registry.names(f"prune/{room}")
    assert set(listed["retrain.schedule"]) == set(
        get_args(Retrain.model_fields["schedule"].annotation)
    )
    assert set(listed["prune.structure"]) == {*STRUCTURES, "N:M"}
    assert all(len(line) > 20 for names in listed.values() for line in names.values())
