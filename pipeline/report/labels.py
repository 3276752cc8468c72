"""Labels of methods and numbers, and the colour, marker and line of each method in figures.

A method's label and look are declared in its own file, pipeline/plan/methods/NAME.py.
"""

from dataclasses import dataclass
from itertools import product

from pipeline import registry
from pipeline.config.schema import Prune
from pipeline.plan.declared import declared

# Okabe & Ito (2008): colours that colour-blind readers can tell apart. Their yellow is left out:
# it is too light for lines on white paper.
_COLOURS = {
    "black": "#000000",
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
}


@dataclass(frozen=True)
class Look:
    """The colour, marker and line of a method, and the size of its marker."""

    colour: str
    marker: str
    line: str
    size: float = 1.0


_DENSE = Look(_COLOURS["black"], "D", ":")
# For methods that declare no look: every marker with every colour. No method's file has these.
_SPARE = [
    Look(colour, marker, line, 1.2)
    for (marker, line), colour in product([("8", "--"), ("H", "-.")], _COLOURS.values())
]

# For series that are no methods: each differs in colour, marker and line.
SERIES = [
    Look(_COLOURS["blue"], "o", "-"),
    Look(_COLOURS["vermilion"], "s", "--"),
    Look(_COLOURS["green"], "^", "-."),
    Look(_COLOURS["purple"], "D", ":"),
    Look(_COLOURS["black"], "v", "--"),
    Look(_COLOURS["sky"], "P", "-", 1.2),
    Look(_COLOURS["orange"], "X", "-.", 1.2),
]


def looks(methods: list[str]) -> dict[str, Look]:
    """Return the look of each of ``methods``; those that declare none get spare ones in turn."""
    declared_looks = {method: _declared_look(method) for method in methods}
    others = [method for method, look in declared_looks.items() if look is None]
    spare = {method: _SPARE[i % len(_SPARE)] for i, method in enumerate(others)}
    return {method: look or spare[method] for method, look in declared_looks.items()}


def _declared_look(method: str) -> Look | None:
    look = declared(method).look
    if look is None:
        return _DENSE if method == "dense" else None
    colour, *shape = look
    return Look(_COLOURS[colour], *shape)


def label(method: str, m: int) -> str:
    """Return the name of a method for readers; ``m`` is the number of candidates."""
    text = declared(method).label
    return method.replace("_", " ") if text is None else text.replace("{m}", str(m))


def pruning_rules(prune: Prune) -> tuple[str, str]:
    """Return the names of criterion and allocation for readers."""
    return (
        registry.label("prune/criteria", prune.criterion),
        registry.label("prune/allocations", prune.allocation),
    )


def percent(fraction: float, digits: int = 2) -> str:
    """Return a fraction as percent without the sign: 0.95 is ``95.00``."""
    return f"{100 * fraction:.{digits}f}"


def sparsity(fraction: float) -> str:
    """Return a sparsity as percent with at most two decimals and no trailing zeros: ``98 %``."""
    return f"{100 * fraction:.2f}".rstrip("0").rstrip(".") + " %"


def short(fraction: float) -> str:
    """Return a sparsity for an axis: `sparsity` without the sign, ``99.5``."""
    return sparsity(fraction).removesuffix(" %")


def epochs(count: int) -> str:
    """Return ``1 epoch`` or ``10 epochs``."""
    return f"{count} {'epoch' if count == 1 else 'epochs'}"
