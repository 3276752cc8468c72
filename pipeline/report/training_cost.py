"""Training images of each method, counted from the plan and the size of the training split."""

from collections.abc import Collection
from pathlib import Path

from safetensors import SafetensorError

from pipeline.plan.budget import total
from pipeline.plan.passes import training_examples
from pipeline.plan.plan import Plan


def trained_images(plan: Plan, artifacts: Path, without: Collection[str] = ()) -> dict[str, int]:
    """Return the images of all trainings that each method's last network depends on.

    A stage that methods share counts for each of them; passes are those of `budget.total`, and an
    epoch drops a short last batch. Empty without a budget in params.yaml, and where the data set is
    in ``without`` or missing.
    """
    images = 0 if plan.params.budget is None else _images_per_epoch(plan, artifacts, without)
    if not images:
        return {}
    return {
        row.method: images * total(plan, row.model)
        for row in plan.rows
        if row.phase == plan.params.phases
    }


def _images_per_epoch(plan: Plan, artifacts: Path, without: Collection[str]) -> int:
    """Return the size of the training split without its last batch where that is short."""
    file, batch = artifacts / "data" / "train.safetensors", plan.params.pretrain.batch_size
    if "data" in without or not file.is_file():
        return 0
    try:
        examples = training_examples(file)
    except (SafetensorError, OSError):
        return 0
    return examples - examples % batch if examples >= batch else examples
