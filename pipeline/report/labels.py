"""How methods are called and drawn: one label, colour and marker each, the same everywhere."""

from dataclasses import dataclass

from pipeline.plan.declared import declared

# Okabe & Ito (2008): eight colours that colour-blind readers tell apart; yellow is too light
# for lines on paper.
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
    """How one method is drawn."""

    colour: str
    marker: str
    line: str
    size: float = 1.0


_DENSE = Look(_COLOURS["black"], "D", ":")
_SPARE = [
    Look(_COLOURS["sky"], "X", "--", 1.2),
    Look(_COLOURS["black"], "<", "--"),
    Look(_COLOURS["blue"], ">", "-."),
    Look(_COLOURS["vermilion"], "h", "-."),
]


def looks(methods: list[str]) -> dict[str, Look]:
    """Return the look of each of ``methods``; those that declare none share the rest."""
    own = {method: _declared_look(method) for method in methods}
    others = [method for method in methods if own[method] is None]
    spare = {method: _SPARE[i % len(_SPARE)] for i, method in enumerate(others)}
    return {method: look or spare[method] for method, look in own.items()}


def _declared_look(method: str) -> Look | None:
    look = declared(method).look
    if look is None:
        return _DENSE if method == "dense" else None
    colour, *shape = look
    return Look(_COLOURS[colour], *shape)


def label(method: str, m: int) -> str:
    """Return the name that a reader sees; ``m`` is the number of candidates."""
    own = declared(method).label
    if own is not None:
        return own.replace("{m}", str(m))
    return method.replace("_", " ")


def percent(fraction: float, digits: int = 2) -> str:
    """Return a fraction as percent without the sign: 0.95 is ``95.00``."""
    return f"{100 * fraction:.{digits}f}"


def sparsity(fraction: float) -> str:
    """Return a sparsity as percent with as many decimals as it needs, two at most: ``98 %``."""
    return f"{100 * fraction:.2f}".rstrip("0").rstrip(".") + " %"


def short(number: float) -> str:
    """Return a sparsity for an axis: percent without the sign and without idle zeros, ``99.5``."""
    return sparsity(number).removesuffix(" %")


# For series that are no methods; colour, marker and line each tell them apart.
SERIES = [
    Look(_COLOURS["blue"], "o", "-"),
    Look(_COLOURS["vermilion"], "s", "--"),
    Look(_COLOURS["green"], "^", "-."),
    Look(_COLOURS["purple"], "D", ":"),
    Look(_COLOURS["black"], "v", "--"),
    Look(_COLOURS["sky"], "P", "-", 1.2),
    Look(_COLOURS["orange"], "X", "-.", 1.2),
]


def epochs(count: int) -> str:
    """Return ``1 epoch`` or ``10 epochs``."""
    return f"{count} {'epoch' if count == 1 else 'epochs'}"
