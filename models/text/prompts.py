"""Learned vectors that a frozen language model reads with each sentence (prompt tuning, arXiv 2104.08691)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from petground.models.text.config import TextEncoderError
from petground.models.text.encoder import longest, tokenise

__all__ = ["LearnedPrompts"]


class LearnedPrompts(nn.Module):
    """As in LLMSeg (Nat Commun 2024;15:9186): `sets` of `length` vectors, each set read with the sentence on its own.

    The vectors are put behind the model's begin token, or first where it has none, and the state of the last token,
    which has seen all others, stands for the sentence. The model's weights stay as they are and belong to nobody's
    state_dict; gradients go through them to the vectors, so the model runs in every step.

    Args:
        sets: how many tokens a sentence becomes.
        length: vectors of each set.
        channels: features of the model's word embeddings and states.
    """

    def __init__(self, sets: int, length: int, channels: int):
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(sets, length, channels))

    def forward(self, model: Any, tokenizer: Any, sentences: Sequence[str], max_tokens: int) -> tuple[Tensor, Tensor]:
        """S sentences -> states [S, sets, D] float32 and mask [S, sets], all True.

        model, tokenizer: of Hugging Face; an encoder or a decoder that takes `inputs_embeds`, padded on the right.
        max_tokens: longer sentences are cut. Raises TextEncoderError when the model does not fit.
        """
        words = model.get_input_embeddings()
        sets, length, channels = self.vectors.shape
        if words.embedding_dim != channels:
            raise TextEncoderError(
                f"learned prompts need word embeddings as wide as the states: {words.embedding_dim} and {channels}"
            )
        room = longest(tokenizer, model.config) - length
        if room < 1:
            raise TextEncoderError(f"{length} prompt vectors leave the language model no room for the sentence")
        ids, mask = tokenise(tokenizer, sentences, min(max_tokens, room))
        ids, mask = ids.to(self.vectors.device), mask.to(self.vectors.device)
        begin = _begin(tokenizer, ids)
        embedded = words(ids)
        own = self.vectors.to(embedded.dtype)[:, None].expand(-1, len(ids), -1, -1)
        text = embedded[None].expand(sets, -1, -1, -1)
        read = torch.cat([text[:, :, :begin], own, text[:, :, begin:]], dim=2).flatten(0, 1)
        keep = torch.cat([mask[:, :begin], mask.new_ones(len(ids), length), mask[:, begin:]], dim=1).repeat(sets, 1)
        states = model(inputs_embeds=read, attention_mask=keep).last_hidden_state
        last = states[torch.arange(len(states), device=states.device), keep.sum(1) - 1].float()
        tokens = last.reshape(sets, len(ids), -1).transpose(0, 1)
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)


def _begin(tokenizer: Any, ids: Tensor) -> int:
    """1 where every sentence begins with the model's own begin token, else 0."""
    known = [token for token in (tokenizer.bos_token_id, tokenizer.cls_token_id) if token is not None]
    return int(any(bool((ids[:, 0] == token).all()) for token in known))
