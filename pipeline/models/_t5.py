"""T5 as a module from token ids to the scores of every token of the vocabulary."""

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.optional_imports import extra

PAD, END = 0, 1  # T5's special tokens; padding is also the decoder's first input
MODULE = "transformers.models.t5"


class TiedHead(nn.Linear):
    """A classifier that shares the embedding's weight; a state dict holds it once, there."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__(table.embedding_dim, table.num_embeddings, bias=False, device="meta")
        self.weight = table.weight

    def _save_to_state_dict(self, *_: object) -> None:
        pass

    def _load_from_state_dict(self, *_: object) -> None:
        pass


class Translator(nn.Module):
    """T5 with one embedding for source, target and classifier; names of weights are T5's own.

    Source: Raffel et al. 2020, Exploring the Limits of Transfer Learning, Section 2.1.
    """

    # In T5's files beside the weights: copies of the embedding, and an unused table.
    redundant = frozenset(
        {
            "encoder.embed_tokens.weight",
            "decoder.embed_tokens.weight",
            "lm_head.weight",
            "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
        }
    )

    def __init__(self, *, classes: int, width: int, head: int, heads: int, wide: int, deep: int):
        super().__init__()
        config = extra(f"{MODULE}.configuration_t5", "translation").T5Config(
            vocab_size=classes,
            d_model=width,
            d_kv=head,
            num_heads=heads,
            d_ff=wide,
            num_layers=deep,
            attn_implementation="eager",  # plain products: the same bits on every run
        )
        t5 = extra(f"{MODULE}.modeling_t5", "translation").T5ForConditionalGeneration(config)
        self.shared: nn.Embedding = t5.shared
        self.lm_head = TiedHead(self.shared)
        self.encoder, self.decoder = t5.encoder, t5.decoder
        self.encoder.embed_tokens = self.decoder.embed_tokens = nn.Identity()
        self.scale = width**-0.5

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the scores of each target token given those before, float [B, K, l].

        Arguments: tokens, int64 [B, 2, L], the source and the target shifted right by one; l <= L
        is the length of the longest target; later columns are not computed.
        """
        source, shifted = (_cropped(side) for side in tokens.unbind(1))
        hidden = self._decode(shifted, self._encode(source), source).last_hidden_state
        scores: Tensor = self.lm_head(hidden * self.scale)
        return scores.transpose(1, 2)

    def generate(self, source: Tensor) -> Tensor:
        """Return the translation of ``source``, int64 [B, L], as ids of the same shape.

        Greedy search: the token with the largest score (the first of equal ones), until each
        sentence has ended or has L tokens; padding follows the end.
        """
        result = torch.full_like(source, PAD)
        source = _cropped(source)
        memory, cache = self._encode(source), None
        last, ended = result[:, :1], torch.zeros_like(result[:, 0], dtype=torch.bool)
        for column in range(result.shape[1]):
            out = self._decode(last, memory, source, use_cache=True, past_key_values=cache)
            cache = out.past_key_values
            scores = self.lm_head(out.last_hidden_state[:, -1] * self.scale)
            last = scores.argmax(1, keepdim=True).masked_fill(ended[:, None], PAD)
            result[:, column] = last[:, 0]
            ended |= last[:, 0] == END
            if ended.all():
                break
        return result

    def _encode(self, source: Tensor) -> Tensor:
        out = self.encoder(inputs_embeds=self.shared(source), attention_mask=_not_padding(source))
        states: Tensor = out.last_hidden_state
        return states

    def _decode(self, tokens: Tensor, memory: Tensor, source: Tensor, **cache: Any) -> Any:
        return self.decoder(
            inputs_embeds=self.shared(tokens),
            encoder_hidden_states=memory,
            encoder_attention_mask=_not_padding(source),
            **({"use_cache": False} | cache),
        )


def build(channels: int, **sizes: int) -> nn.Module:
    """Return a T5 of these ``sizes`` with random weights, T5's own, from torch's generator.

    Raises:
        UserError: the examples are images, or the package transformers is missing.
    """
    if channels != 2:
        raise UserError(
            "network.name is a T5, which translates, but the examples are not pairs of sentences: "
            "choose another network, or data of the task translation"
        )
    return Translator(**sizes)


def _not_padding(tokens: Tensor) -> Tensor:
    return (tokens != PAD).long()


def _cropped(tokens: Tensor) -> Tensor:
    """Return ``tokens`` without the columns behind the longest sentence, at least one."""
    if torch.compiler.is_exporting():  # an exported graph has one shape
        return tokens
    columns = (tokens != PAD).any(0).nonzero()
    return tokens[:, : int(columns.max()) + 1 if len(columns) else 1]
