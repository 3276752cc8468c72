"""The library in the training loops of others: the examples of docs/api.md, run as they are."""

import re
from typing import Any

import pytest
import torch

from pipeline import api
from tests.project import ROOT
from tests.test_api import positive_zeros, pruned_entries

PAGE = (ROOT / "docs/api.md").read_text()


def run(heading: str, without: str = "") -> dict[str, Any]:
    """Run the first block of the page, then those below ``heading``; return their variables."""
    first = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL).group(1)
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    variables: dict[str, Any] = {"__name__": "example"}
    for block in dict.fromkeys([first, *blocks]):
        code = block.replace(without, "") if without else block
        exec(compile(code, f"docs/api.md: {heading}", "exec"), variables)
    return variables


@pytest.fixture(autouse=True)
def untrained(tmp_path, monkeypatch):
    """Let an example write where it likes, and keep the weights that a network begins with."""
    monkeypatch.chdir(tmp_path)
    before: list[torch.Tensor] = []

    def hold(model: Any, original: Any = api.hold) -> Any:
        before.append(kept_entries(original(model)))
        return model

    monkeypatch.setattr(api, "hold", hold)
    return before


def kept_entries(model: torch.nn.Module) -> torch.Tensor:
    """Return all weights that the model's masks keep."""
    weights = [model.get_parameter(name)[mask] for name, mask in api.masks(model).items()]
    return torch.cat(weights).detach().clone()


def trained_and_sparse(model: torch.nn.Module, before: list[torch.Tensor]) -> None:
    """Check that pruned weights are +0.0, and that most of the others have moved."""
    assert api.sparsity(model) == pytest.approx(0.9, abs=0.005)
    assert positive_zeros(pruned_entries(model))
    assert (kept_entries(model) != before[-1]).float().mean() > 0.5


def test_plain_pytorch(untrained):
    example = run("Plain PyTorch")
    assert len(example["candidates"]) == 3
    for candidate in example["candidates"]:
        trained_and_sparse(candidate, untrained)
    trained_and_sparse(example["soup"], untrained)
    loaded = example["network"]()
    api.load(loaded, "soup.safetensors")
    assert torch.equal(kept_entries(loaded), kept_entries(example["soup"]))


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")  # of a loader without workers
def test_lightning(untrained):
    import pytorch_lightning

    example = run("Lightning")
    assert isinstance(example["trainer"], pytorch_lightning.Trainer)
    assert example["trainer"].global_step == 8
    trained_and_sparse(example["model"], untrained)


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
def test_accelerate(untrained):
    import accelerate

    example = run("accelerate")
    assert isinstance(example["optimizer"], accelerate.optimizer.AcceleratedOptimizer)
    trained_and_sparse(example["model"], untrained)


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("optimiser", "without"),
    [(torch.optim.SGD, ""), (torch.optim.AdamW, ", optimizers=(optimizer, scheduler)")],
)
def test_hugging_face_trainer(untrained, optimiser, without):
    example = run("Hugging Face's Trainer", without)
    model, trainer = example["model"], example["trainer"]
    assert trainer.state.global_step == 8
    assert type(trainer.optimizer.optimizer) is optimiser
    trained_and_sparse(model, untrained)
    assert len([name for name in api.masks(model) if "encoder" in name]) == 12
    assert not any("embeddings" in name for name in api.masks(model))
