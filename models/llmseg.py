"""LLMSeg: a residual U-Net whose features meet the tokens of a frozen language model at every scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from monai.networks.blocks.unetr_block import UnetrBasicBlock, UnetrUpBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from petground.models.net_config import NetConfig
from petground.models.text.prompts import LearnedPrompts
from petground.models.two_way import TwoWayTransformer
from petground.models.unet import Decoded

__all__ = ["LLMSegNet"]

_CONV: dict[str, Any] = {"spatial_dims": 3, "kernel_size": 3, "norm_name": "instance"}


class LLMSegNet(nn.Module):
    """LLM-driven multimodal target volume contouring, Oh et al., Nat Commun 2024;15:9186 (arXiv 2311.01908).

    Every encoder stage halves the grid, the first included; a two-way transformer then aligns each stage's features
    with the sentence, and a U-Net decoder reads only those. The image encoder does not see the text, so an exam is
    encoded once; alignment and decoder run for each sentence. The last step, from half to full resolution, is one
    transposed convolution. No coordinates: `box` is not read.
    """

    def __init__(self, config: NetConfig, text_channels: int):
        super().__init__()
        self.config = config
        features, llmseg = config.features, config.llmseg
        ins = [config.in_channels, *features[:-1]]
        self.encoder = nn.ModuleList(
            UnetrBasicBlock(in_channels=before, out_channels=after, stride=2, res_block=True, **_CONV)
            for before, after in zip(ins, features, strict=True)
        )
        self.text = nn.ModuleList(nn.Linear(text_channels, channels) for channels in features)
        self.align = nn.ModuleList(
            TwoWayTransformer(channels, features[0] * 2**stage, llmseg.depth, llmseg.num_heads)
            for stage, channels in enumerate(features)
        )
        coarsest = len(features) - 2
        self.decoder = nn.ModuleList(  # from coarse to fine; the published one has a residual block in the first only
            UnetrUpBlock(
                in_channels=features[stage + 1],
                out_channels=features[stage],
                upsample_kernel_size=2,
                res_block=stage == coarsest,
                **_CONV,
            )
            for stage in range(coarsest, -1, -1)
        )
        self.head = nn.ConvTranspose3d(features[0], 1, kernel_size=2, stride=2)
        if config.head_bias:
            nn.init.constant_(cast(Tensor, self.head.bias), config.head_bias)
        self.prompts = LearnedPrompts(llmseg.prompts, llmseg.prompt_length, text_channels) if llmseg.prompts else None

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Image [B, C, Z, Y, X], axes in multiples of `config.divisor_zyx` -> features, finest first.

        Raises ValueError for another grid.
        """
        self.config.require_grid(image.shape)
        features, x = [], image
        for stage in self.encoder:
            x = self._run(stage, x)
            features.append(x)
        return tuple(features)

    def decode(
        self, features: Sequence[Tensor], tokens: Tensor, token_mask: Tensor, box: Tensor | None = None
    ) -> Decoded:
        """Features of B exams, tokens [B, S, P, D], token_mask [B, S, P] bool -> one stage, logits [B, S, Z, Y, X]."""
        if tokens.shape[0] != features[0].shape[0] or token_mask.shape != tokens.shape[:3]:
            raise ValueError(
                f"{features[0].shape[0]} exams, tokens {tuple(tokens.shape)}, mask {tuple(token_mask.shape)}"
            )
        batch, sentences = tokens.shape[:2]
        words, mask = tokens.flatten(0, 1), token_mask.flatten(0, 1).to(torch.bool)
        aligned = [
            self._run(align, feature.repeat_interleave(sentences, dim=0), text(words), mask)
            for align, text, feature in zip(self.align, self.text, features, strict=True)
        ]
        x = aligned[-1]
        for stage, skip in zip(self.decoder, reversed(aligned[:-1]), strict=True):
            x = self._run(stage, x, skip)
        logits = self.head(x)
        return Decoded([logits.reshape(batch, sentences, *logits.shape[2:])], None)

    def forward(self, image: Tensor, tokens: Tensor, token_mask: Tensor, box: Tensor | None = None) -> Tensor:
        """Image [B, C, Z, Y, X], tokens [B, S, P, D], token_mask [B, S, P] bool -> logits [B, S, Z, Y, X]."""
        return self.decode(self.encode(image), tokens, token_mask, box).stages[-1]

    def _run(self, part: nn.Module, *inputs: Tensor) -> Tensor:
        if self.config.checkpointing and torch.is_grad_enabled():
            return cast(Tensor, checkpoint(part, *inputs, use_reentrant=False))
        return cast(Tensor, part(*inputs))
