"""How methods are called and drawn: one label, colour and marker each, the same everywhere."""

from dataclasses import dataclass
from functools import cache

from pipeline.families import names

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

_DURING = ("bimp", "gmp", "dpf", "gsm", "lc", "dnw", "dst", "str")  # pruning during training


@dataclass(frozen=True)
class Look:
    """How one method is drawn."""

    colour: str
    marker: str
    line: str
    size: float = 1.0


_LOOKS = {
    "dense": Look(_COLOURS["black"], "D", ":"),
    "sms_uniform": Look(_COLOURS["blue"], "o", "-"),
    "sms_greedy": Look(_COLOURS["orange"], "s", "-"),
    "sms_learned": Look(_COLOURS["sky"], "X", "-", 1.2),
    "sms_distilled": Look(_COLOURS["green"], "h", "-", 1.2),
    "sms_model_stock": Look(_COLOURS["purple"], "<", "-"),
    "sms_wise": Look(_COLOURS["vermilion"], "*", "-", 1.4),
    "imp": Look(_COLOURS["green"], "^", "--"),
    "imp_mx": Look(_COLOURS["vermilion"], "v", "--"),
    "imp_reprune": Look(_COLOURS["purple"], "P", "-.", 1.3),
}
_SPARE = [
    Look(_COLOURS["sky"], "X", "--", 1.2),
    Look(_COLOURS["black"], "<", "--"),
    Look(_COLOURS["blue"], ">", "-."),
    Look(_COLOURS["vermilion"], "h", "-."),
]

_RULES = {"model_stock": "Model Stock", "wise": "WiSE"}  # as their papers write them


def looks(methods: list[str]) -> dict[str, Look]:
    """Return the look of each of ``methods``; those without a look of their own share the rest."""
    others = [method for method in methods if method not in _LOOKS]
    spare = {method: _SPARE[i % len(_SPARE)] for i, method in enumerate(others)}
    return {method: _LOOKS.get(method) or spare[method] for method in methods}


def label(method: str, m: int) -> str:
    """Return the name that a reader sees; ``m`` is the number of candidates."""
    known = {
        "dense": "dense",
        "imp": "IMP",
        "imp_mx": f"IMP {m}\N{MULTIPLICATION SIGN} longer",
        "imp_phases": f"IMP with {m}\N{MULTIPLICATION SIGN} phases",
        "imp_reprune": "IMP-RePrune",
        "imp_cia": "IMP-RePrune (CIA)",
        "imp_caa": "IMP-RePrune (CAA)",
        "imp_align": "IMP-RePrune (aligned)",
        "imp_swa": "IMP+SWA",
        "sms_swa": "SMS of SWA means",
    }
    return known.get(method) or _labels().get(method) or method.replace("_", " ")


@cache
def _labels() -> dict[str, str]:
    """Return the labels of SMS by each merge rule, and of pruning during training."""
    by_rule = {
        f"sms_{rule}": f"SMS {_RULES.get(rule, rule.replace('_', ' '))}" for rule in names("soup")
    }
    plain = {name: name.upper() for name in _DURING}
    return by_rule | plain | {f"{name}_sms": f"{label} + SMS" for name, label in plain.items()}


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
