"""The grounding network: an exam is encoded once, any number of sentences is decoded from it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petground.models.unet import NetConfig, TextDecoder, make_encoder

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
        """Image [B, 2, Z, Y, X], every axis a multiple of `config.divisor` -> features for `decode`.

        Raises ValueError for another grid.
        """
        divisor = self.config.divisor
        if image.ndim != 5 or any(n % divisor for n in image.shape[2:]):
            raise ValueError(f"image {tuple(image.shape)}: [B, C, Z, Y, X] with axes in multiples of {divisor}")
        return self.decoder.prepare(self.encoder(image))

    def decode(self, features: tuple[Tensor, ...], tokens: Tensor, token_mask: Tensor) -> Tensor:
        """Features of B exams, tokens [B, S, P, D], token_mask [B, S, P] bool -> logits [B, S, Z, Y, X]."""
        return self.decode_stages(features, tokens, token_mask)[-1]

    def decode_stages(self, features: tuple[Tensor, ...], tokens: Tensor, token_mask: Tensor) -> list[Tensor]:
        """As `decode`, with the logits of the coarse heads before the answer: what deep supervision judges."""
        if tokens.shape[0] != features[0].shape[0] or token_mask.shape != tokens.shape[:3]:
            raise ValueError(
                f"{features[0].shape[0]} exams, tokens {tuple(tokens.shape)}, mask {tuple(token_mask.shape)}"
            )
        logits: list[Tensor] = self.decoder(features, tokens, token_mask.to(torch.bool))
        return logits

    def forward(self, image: Tensor, tokens: Tensor, token_mask: Tensor) -> Tensor:
        """Image [B, 2, Z, Y, X], tokens [B, S, P, D], token_mask [B, S, P] bool -> logits [B, S, Z, Y, X]."""
        return self.decode(self.encode(image), tokens, token_mask)
