"""The grounding network: an exam is encoded once, any number of sentences is decoded from it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petground.models.net_config import NetConfig
from petground.models.unet import Decoded, TextDecoder, make_encoder, run_encoder

__all__ = ["GroundingNet"]


class GroundingNet(nn.Module):
    """U-Net with text fused in the decoder, after ConTEXTual Net 3D (arXiv 2502.00528).

    The image encoder never sees the text: `encode` once per exam, `decode` as often as there are sentences.
    """

    def __init__(self, config: NetConfig, text_channels: int):
        super().__init__()
        self.config = config
        self.encoder = make_encoder(config)
        self.decoder = TextDecoder(config, text_channels)

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Image [B, 2, Z, Y, X], axes in multiples of `config.divisor_zyx` -> features for `decode`.

        Raises ValueError for another grid.
        """
        self.config.require_grid(image.shape)
        return self.decoder.prepare(run_encoder(self.encoder, image, checkpointing=self.config.checkpointing))

    def decode(
        self, features: tuple[Tensor, ...], tokens: Tensor, token_mask: Tensor, box: Tensor | None = None
    ) -> Decoded:
        """Features of B exams, tokens [B, S, P, D], token_mask [B, S, P] bool -> logits [B, S, Z, Y, X] and presence.

        box: [B, 2, 3], the image's lower and upper corner (z, y, x) in the exam's grid of -1..1, for a patch of it.
        The coarse heads' logits come before the answer's: what deep supervision judges.
        """
        if tokens.shape[0] != features[0].shape[0] or token_mask.shape != tokens.shape[:3]:
            raise ValueError(
                f"{features[0].shape[0]} exams, tokens {tuple(tokens.shape)}, mask {tuple(token_mask.shape)}"
            )
        decoded: Decoded = self.decoder(features, tokens, token_mask.to(torch.bool), box)
        return decoded

    def forward(self, image: Tensor, tokens: Tensor, token_mask: Tensor, box: Tensor | None = None) -> Tensor:
        """Image [B, 2, Z, Y, X], tokens [B, S, P, D], token_mask [B, S, P] bool -> logits [B, S, Z, Y, X]."""
        return self.decode(self.encode(image), tokens, token_mask, box).stages[-1]
