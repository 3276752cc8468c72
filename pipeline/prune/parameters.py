"""Which weights pruning may touch."""

from torch import nn

LAYERS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
)


def prunable(model: nn.Module) -> list[str]:
    """Return the names of the prunable weights in model order.

    These are the weights of every convolution and linear layer, the stem, the shortcuts and the
    classifier included. Biases, normalisation parameters and embeddings stay dense: they are few
    and cost much when pruned. So does a classifier that shares its weight with an embedding.

    Source: Sparse Model Soups, appendix A.2 (after Evci et al. 2020; Dettmers & Zettlemoyer 2019).
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return [
        f"{name}.weight" if name else "weight"
        for name, module in model.named_modules()
        if isinstance(module, LAYERS) and id(module.weight) not in tables
    ]
