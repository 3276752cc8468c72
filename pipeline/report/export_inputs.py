"""Inputs of the command `export`: the artifacts of a network that is named or chosen."""

from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import UserError
from pipeline.export.write import Inputs
from pipeline.plan.measurements import export_inputs
from pipeline.plan.plan import Plan, Result, artifact
from pipeline.report.publish import ARTIFACTS, best_soup, current_folders
from pipeline.stagekit.model_folder import MODEL


def inputs_of(plan: Plan, root: Path, current: Mapping[str, str], name: str | None) -> Inputs:
    """Return the artifacts of the network ``name``.

    Args:
        plan: of params.yaml.
        root: the checkout.
        current: the up-to-date stages.
        name: a stage, or a model's folder; None is the best soup of the last phase.

    Raises:
        UserError: there is no such network, or its stage is not up to date.
    """
    if name is None:
        best = best_soup(plan, root, current)
        if best is None:
            raise UserError(
                "no soup of the last phase is up to date: run `dvc repro`, or name a network"
            )
        return _inputs(plan, root, current, best[0].model)
    folder = Path(name)
    if (root / ARTIFACTS).resolve() == folder.resolve().parent:
        name = folder.name  # artifacts/NAME is the stage NAME
    if name in plan.nodes:
        return _inputs(plan, root, current, name)
    if (folder / MODEL).is_file():
        dense = _artifact(root, current, plan.rows[0].model)
        return Inputs(_artifact(root, current, "data"), folder, dense)
    raise UserError(
        f"{name} is neither a stage of stages/dvc.yaml nor a folder with {MODEL}: name one of them"
    )


def _inputs(plan: Plan, root: Path, current: Mapping[str, str], name: str) -> Inputs:
    """Return the artifacts of the stage ``name``, and the measurements that are up to date."""
    row = next((row for row in plan.rows if row.model == name), None)
    paths = export_inputs(plan, row or _dense(plan, name))
    model = _artifact(root, current, name)
    if not (model / MODEL).is_file():
        raise UserError(f"{name} is a stage without a network: name one that trains or merges")
    return Inputs(
        _artifact(root, current, "data"),
        model,
        _artifact(root, current, paths["dense"].removeprefix(f"{ARTIFACTS}/")),
        current_folders(root, paths["metrics"], current) if row else [],
        current_folders(root, paths["dense_metrics"], current),
    )


def _dense(plan: Plan, name: str) -> Result:
    """Return the dense network of the seed of the stage ``name``."""
    seed = int(plan.nodes[name].labels.get("seed", plan.params.seeds[0]))
    return next(row for row in plan.rows if (row.method, row.seed) == ("dense", seed))


def _artifact(root: Path, current: Mapping[str, str], stage: str) -> Path:
    if stage not in current:
        raise UserError(f"{stage} is not up to date: run `dvc repro` first")
    return root / artifact(stage)
