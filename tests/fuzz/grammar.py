"""Grammar of settings: edits of params.yaml and recipes, as values, as text, and as -S options."""

import datetime
import json
import math
import string
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from hypothesis import strategies as st
from pydantic import BaseModel

from pipeline import registry
from pipeline.config.experiment import Experiment, recipes

NAMES = {  # keys that take the names of members or files
    "recipe": [*recipes(), "../recipes/digits.yaml", "recipes/digits.yaml", "gone.yaml"],
    "methods": registry.names("plan/methods"),
    "merge": [*registry.names("soup"), "pipeline/soup/uniform.py", "gone.py:merge"],
    "studies": registry.names("plan/studies"),
    "export": registry.names("export/formats"),
    "task": [*registry.names("tasks"), "gone.py"],
    "data.name": [*registry.names("data"), "pipeline/data/digits.py:read", "gone.py"],
    "data.path": ["data", "no such folder", "a'b", 'a"b', "a\nb", "${x}", "$(id)", "`id`", "a;b"],
    "network.name": [*registry.names("models"), "torchvision.resnet18", "timm.x", "a b.py"],
    "network.weights": ["w.pt", "w.safetensors", "a\nb.pt", "${m}.pt", "-w.pt", "w'.pt", "a  b.pt"],
    "prune.criterion": registry.names("prune/criteria"),
    "prune.allocation": registry.names("prune/allocations"),
    "prune.structure": ["weights", "filters", "2:4", "1:4", "3:4", "4:2", "0:4", "2:4:8", "99:100"],
    "evaluate.corruptions_path": ["data/CIFAR-10-C", "gone", "a\tb", "{{x}}", "#", " "],
}
NUMBERS = [
    *(0, 1, 2, 3, 4, 5, 10, 19, 20, 30, 100, 101, 2**31 - 1, 2**31, 2**63, 10**30, -1, -(2**70)),
    *(0.0, -0.0, 0.1, 0.5, 0.55, 0.75, 0.95, 0.999999, 1.0, 1.5, 95.0, 1e-300, 1e300, -0.5),
    *(math.inf, -math.inf, math.nan, 5e-324, 1 - 2**-53),
]
WORDS = [
    *("", " ", "null", "None", "true", "yes", "1e5", "0x10", "1:2", "01", "1_000", "-", "~", "*"),
    *("${x}", "../..", "/etc/passwd", "a\nb", "a\tb", "\x7f", "\u2028", "\ud83d\ude00", "é" * 50),
    *("x" * 5000, "!!python/object:os.system", "{a: 1}", "[1, 2]", "'", '"', "&a", "*a", "%", "@"),
    *(datetime.date(2026, 1, 1), b"bytes"),
]


class Key(NamedTuple):
    """A key of params.yaml and the type of its value."""

    name: str
    kind: Any


def keys(model: type[BaseModel] = Experiment, prefix: str = "") -> Iterator[Key]:
    """Yield all keys of params.yaml, groups and their keys."""
    for name, field in model.model_fields.items():
        yield Key(prefix + name, field.annotation)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys(field.annotation, f"{prefix}{name}.")


KEYS = [*keys(), Key("seed", int)]
GRIDS = {"length": "epochs", "sparsity": "sparsities", "merging": "phase", "swa": "epochs"}


def fitting(key: Key) -> st.SearchStrategy[Any]:
    """Return values of the type of ``key``, inside and outside of its bounds."""
    if key.name in NAMES:
        name = st.sampled_from(NAMES[key.name])
        return st.lists(name, max_size=4) if get_origin(key.kind) is list else name
    return of_type(key.kind)


def of_type(kind: Any) -> st.SearchStrategy[Any]:
    """Return values of an annotation of the schema."""
    origin, arguments = get_origin(kind), get_args(kind)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        float: numbers(),
        int: st.one_of(st.integers(-1, 40), numbers()),
        str: st.text(string.printable, max_size=12),
    }
    if kind in simple:
        return simple[kind]
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in {list, dict}:
        inner = [of_type(each) for each in arguments]
        many = st.lists(inner[0], max_size=5)
        return many if origin is list else st.dictionaries(inner[0], inner[1], max_size=3)
    if origin is Union or str(origin) == "<class 'types.UnionType'>":
        return st.one_of(*(of_type(each) for each in arguments if each is not type(None)))
    if hasattr(kind, "__metadata__") or origin is not None:
        return of_type(arguments[0])
    return anything()


def numbers() -> st.SearchStrategy[Any]:
    return st.one_of(st.sampled_from(NUMBERS), st.floats(0, 1), st.integers(1, 12))


def anything() -> st.SearchStrategy[Any]:
    """Return values of any type that YAML has."""
    leaves = st.one_of(
        st.none(), st.booleans(), numbers(), st.sampled_from(WORDS), st.text(max_size=8)
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=3)
        ),
        max_leaves=6,
    )


def misspelt(name: str) -> st.SearchStrategy[str]:
    """Return keys that are not in the schema, most of them near ``name``."""
    near = [f"{name}s", name[:-1], name.upper(), name.replace(".", "_"), f"{name}.x", f" {name}"]
    strange = ["", "a\nb", "x" * 300, "é", "during", "sparsify.alpha", "m.m", "seeds.0"]
    return st.sampled_from([each for each in (*near, *strange) if each != name])


@st.composite
def edits(draw: st.DrawFn, most: int = 4) -> dict[str, Any]:
    """Return values by dotted key: fitting ones, some of another type, some keys misspelt."""
    result: dict[str, Any] = {}
    for _ in range(draw(st.integers(1, most))):
        key = draw(st.sampled_from(KEYS))
        kind = draw(st.integers(0, 9))
        if kind == 0:
            result[draw(misspelt(key.name))] = draw(anything())
        elif kind == 1:
            study = draw(st.sampled_from(sorted(GRIDS)))
            grid = draw(st.sampled_from([GRIDS[study], "epochs", "schedules", "m", "nothing"]))
            result["studies"] = [study]
            result[f"study.{study}.{grid}"] = draw(st.one_of(anything(), st.lists(numbers())))
        else:
            result[key.name] = draw(anything() if kind <= 3 else fitting(key))
    return result


BREAKS = [
    *(
        "[",
        "]",
        "{",
        "}",
        ":",
        "- ",
        "? ",
        "\t",
        "\n",
        "\r",
        "'",
        '"',
        "#",
        "&a ",
        "*a",
        "!!int ''",
    ),
    *("!!float x", "!!bool x", "!!timestamp 2026-99-99", "2026-99-99", "9" * 5000, "\x00", "\xff"),
    *("<<: ", "%YAML 1.1\n---\n", "...\n", "---\n", "!!set {", "!!binary '@'", "\ufeff", "\u2028"),
    *(
        "&a [*a, *a]",
        "&b {c: *b}",
        "[" * 300,
        "- " * 300,
        "{a: " * 300,
        "m: 3\nm: 4\n",
        "[" * 70000,
    ),
    "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b]\n"
    "d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e]\n"
    "g: &g [*f,*f,*f,*f,*f,*f]\nh: &h [*g,*g,*g,*g,*g,*g]\nm: [*h,*h,*h,*h]\n",
]


@st.composite
def damage(draw: st.DrawFn, text: bytes) -> bytes:
    """Return ``text`` with 1 to 3 places of it overwritten, cut, repeated or added to."""
    content = bytearray(text)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 40)))
        inserted = draw(st.sampled_from(BREAKS)).encode("utf-8", "replace")
        kind = draw(st.integers(0, 4))
        if kind == 0:
            del content[start:end]
        elif kind == 1:
            content[start:start] = content[start:end]
        elif kind == 2:
            content[start:end] = draw(st.binary(max_size=4))
        else:
            content[start:start] = inserted
    return bytes(content)


@st.composite
def options(draw: st.DrawFn) -> list[str]:
    """Return the values of 1 to 3 options -S of ``dvc exp run``: KEY=VALUE in hydra's grammar."""
    result = []
    for key, value in draw(edits(most=3)).items():
        form = draw(st.integers(0, 5))
        try:
            text = json.dumps(value, ensure_ascii=False)
        except TypeError:
            text = str(value)
        if isinstance(value, str) and form != 1:
            text = value
        result.append(("+" if form == 0 else "++" if form == 2 else "") + f"{key}={text}")
    return result
