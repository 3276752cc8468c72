"""GSM: only the most salient weights learn, decay and momentum shrink the rest (Ding et al. 2019).

    B = 1 for the k largest |w * grad L| of the network, else 0
    z <- beta * z + lambda * w + B * grad L        w <- w - eta * z

so that the other weights fall towards 0 and pruning to the k largest |w| in the end costs little.
(The project's optimiser applies Nesterov's variant of z, here as everywhere.)

Source: Ding et al. 2019, equations 8 to 10, with one ranking over all layers.
"""

import torch
from torch import Tensor, nn

from pipeline.sparsify._ranking import largest
from pipeline.sparsify.base import Sparsifier, SparsifyConfig


class GSM(Sparsifier):
    """Silence the gradient of all but the k most salient weights, and prune hard at the end."""

    @torch.no_grad()
    def on_gradients(self, model: nn.Module, step: int) -> None:  # noqa: ARG002
        """Keep the loss gradient where |w * g| is largest; biases and the like keep theirs."""
        gradients: dict[str, Tensor] = {
            name: weight.grad for name, weight in self.weights.items() if weight.grad is not None
        }
        saliency = {name: (self.weights[name] * grad).abs() for name, grad in gradients.items()}
        for name, active in largest(saliency, self.goal.sparsity).items():
            gradients[name].masked_fill_(~active, 0)

    def on_train_end(self, model: nn.Module) -> None:  # noqa: ARG002
        """Prune what is left to the exact sparsity."""
        self.prune_to_sparsity()


def build(goal: SparsifyConfig) -> GSM:
    """Return GSM that learns as many weights at a time as ``goal.sparsity`` leaves."""
    return GSM(goal)
