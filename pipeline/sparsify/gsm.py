"""GSM: only the most salient weights get the loss gradient, the rest decays (Ding et al. 2019).

    B = 1 for the k largest |w * grad L| of the network, else 0
    z <- beta * z + lambda * w + B * grad L        w <- w - eta * z

so that the other weights shrink towards 0 and the final pruning to the k largest |w| changes the
network little. (The optimiser uses Nesterov's variant of z, as for every method here.)

Source: Ding et al. 2019, equations 8 to 10, with one ranking over all layers.
"""

import torch
from torch import Tensor, nn

from pipeline.sparsify._ranking import largest
from pipeline.sparsify.base import Sparsifier, SparsifyConfig


class GSM(Sparsifier):
    """Zeroes the gradient of all but the k most salient weights, and prunes at the end."""

    @torch.no_grad()
    def on_gradients(self, model: nn.Module, step: int) -> None:  # noqa: ARG002
        """Keep the loss gradient where |w * g| is largest; parameters not prunable keep theirs."""
        gradients: dict[str, Tensor] = {
            name: weight.grad for name, weight in self.weights.items() if weight.grad is not None
        }
        saliency = {name: (self.weights[name] * grad).abs() for name, grad in gradients.items()}
        for name, active in largest(saliency, self.config.sparsity).items():
            gradients[name].masked_fill_(~active, 0)

    def on_train_end(self, model: nn.Module) -> None:  # noqa: ARG002
        """Prune to the exact sparsity by |w|."""
        self.prune_to_sparsity()


def build(config: SparsifyConfig) -> GSM:
    """Return GSM with k such that ``config.sparsity`` of the weights get no loss gradient."""
    return GSM(config)
