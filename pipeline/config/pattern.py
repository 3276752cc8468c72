"""Settings of N:M pruning: the values that fit to ``prune.structure``, and their defaults."""

from math import isclose
from typing import Any

from pipeline.config.schema import Prune
from pipeline.errors import UserError
from pipeline.prune.pattern import parse


def check_pattern(prune: Prune, target_sparsity: float, phases: int) -> None:
    """Refuse settings that do not fit to N:M pruning, if that is ``prune.structure``.

    Raises:
        UserError: the sparsity is not 1 - N/M, or there are more than M - N phases.
    """
    pattern = parse(prune.structure)
    if pattern is None:
        return
    if not isclose(target_sparsity, pattern.sparsity):
        raise UserError(
            f"target_sparsity is {target_sparsity:g}, but prune.structure is {pattern}, which "
            f"prunes {pattern.sparsity:g} of each layer's weights: set target_sparsity to that or "
            "null"
        )
    if phases > pattern.most_phases:
        raise UserError(
            f"phases is {phases}, but prune.structure is {pattern}, and each phase prunes a weight "
            f"of every {pattern.m}: set phases to at most {pattern.most_phases}, or to null"
        )


def with_pattern(
    merged: dict[str, Any], recipe: dict[str, Any], values: dict[str, Any]
) -> dict[str, Any]:
    """Return the settings with the target sparsity and the phases of N:M pruning filled in.

    The sparsity is 1 - N/M, and the phases are the recipe's, but at most M - N. Values of
    params.yaml stay, and so do those of a recipe that names this N:M itself.

    Args:
        merged: the values of params.yaml over those of the recipe.
        recipe: the values of the recipe.
        values: the values of params.yaml.
    """
    structure = (merged.get("prune") or {}).get("structure")
    pattern = parse(structure)
    if pattern is None:
        return merged
    meant = (recipe.get("prune") or {}).get("structure") == structure
    phases = merged.get("phases")
    most = pattern.most_phases
    defaults = {
        "target_sparsity": pattern.sparsity,
        "phases": min(phases, most) if isinstance(phases, int) else most,
    }
    given = (recipe if meant else {}, values)
    return merged | {
        key: default
        for key, default in defaults.items()
        if all(each.get(key) is None for each in given)
    }
