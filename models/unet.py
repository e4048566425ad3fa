"""3D U-Net of the nnU-Net family with text fused in the decoder.

The encoder is nnU-Net's own (`dynamic_network_architectures`). The decoder is written here because the fusion sits
between the transposed convolution and the skip, and because everything that does not depend on the text is worked
out once for all sentences: a convolution over concatenated channels is the sum of one over the upsampled features
(per sentence) and one over the skip (once).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from dynamic_network_architectures.building_blocks.plain_conv_encoder import PlainConvEncoder
from dynamic_network_architectures.building_blocks.residual_encoders import ResidualEncoder
from torch import Tensor, nn
from torch.nn.functional import interpolate

from petground.models.registry import BlockError, build, check_options

__all__ = ["NetConfig", "TextDecoder", "make_encoder"]


@dataclass(frozen=True)
class NetConfig:
    """A grounding network. The defaults are those of ConTEXTual Net 3D (arXiv 2502.00528).

    Args:
        features: channels of each stage, from full to lowest resolution; each stage halves the grid.
        encoder: nnU-Net's residual or plain convolutional encoder.
        blocks_per_stage: residual blocks (or convolutions, when plain) in each encoder stage.
        decoder_convs: convolutions in each decoder stage.
        fusion: the block that fuses text, by name, and its options, e.g. {name: contextual_gate, num_heads: 4}.
        fusion_stages: stages whose decoder has the block; 0 is full resolution, the last stage has no decoder.
        in_channels: image channels (PET, CT).
        head_bias: logit that every voxel starts with. Lesions are one voxel in some thousand: with -7 the first steps
            are not spent on learning that (as in the focal loss paper, arXiv 1708.02002, section 4.1).
        coarse_heads: each fused stage says where, too, on its own grid: its logits, brought to full resolution, are
            added to the last ones, and training judges each (deep supervision, as in nnU-Net). Text then reaches the
            answer on a short way. Not in the paper.
    """

    features: list[int] = field(default_factory=lambda: [64, 96, 128, 192, 256])
    encoder: Literal["residual", "plain"] = "residual"
    blocks_per_stage: int = 2
    decoder_convs: int = 2
    fusion: dict[str, Any] = field(default_factory=lambda: {"name": "contextual_gate"})
    fusion_stages: list[int] = field(default_factory=lambda: [1, 2, 3])
    in_channels: int = 2
    head_bias: float = 0.0
    coarse_heads: bool = False

    def __post_init__(self) -> None:
        decoders = range(len(self.features) - 1)
        if len(self.features) < 2 or min(self.features) < 1:
            raise BlockError(f"features {self.features}: at least two stages of at least one channel")
        if any(stage not in decoders for stage in self.fusion_stages):
            raise BlockError(f"fusion_stages {self.fusion_stages} not all in 0..{len(self.features) - 2}")
        if "name" not in self.fusion:
            raise BlockError("fusion needs a name, e.g. {name: contextual_gate}")
        options = {key: value for key, value in self.fusion.items() if key != "name"}
        check_options("fusion", self.fusion["name"], options)

    @property
    def divisor(self) -> int:
        """Every axis of the grid must be a multiple of this."""
        return int(2 ** (len(self.features) - 1))


_NORM: dict[str, Any] = {"eps": 1e-5, "affine": True}
_SLOPE = 0.01  # leaky ReLU of nnU-Net v2


def make_encoder(config: NetConfig) -> nn.Module:
    """nnU-Net's encoder; called with [B, in_channels, Z, Y, X] it returns one feature map per stage."""
    stages = len(config.features)
    common: dict[str, Any] = {
        "input_channels": config.in_channels,
        "n_stages": stages,
        "features_per_stage": list(config.features),
        "conv_op": nn.Conv3d,
        "kernel_sizes": 3,
        "strides": [1] + [2] * (stages - 1),
        "conv_bias": True,
        "norm_op": nn.InstanceNorm3d,
        "norm_op_kwargs": dict(_NORM),
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"negative_slope": _SLOPE, "inplace": True},
        "return_skips": True,
    }
    if config.encoder == "plain":
        return PlainConvEncoder(n_conv_per_stage=config.blocks_per_stage, **common)
    return ResidualEncoder(n_blocks_per_stage=config.blocks_per_stage, **common)


class TextDecoder(nn.Module):
    """Decoder whose named stages are fused with text; sentences share whatever does not depend on them."""

    def __init__(self, config: NetConfig, text_channels: int):
        super().__init__()
        stages = reversed(range(len(config.features) - 1))
        self.stages = nn.ModuleList(_DecoderStage(config, stage, text_channels) for stage in stages)
        self.head = nn.Conv3d(config.features[0], 1, kernel_size=1)
        coarse = sorted((stage for stage in config.fusion_stages if stage > 0), reverse=True)
        coarse = coarse if config.coarse_heads else []
        self.coarse = nn.ModuleDict({str(stage): nn.Conv3d(config.features[stage], 1, 1) for stage in coarse})
        # Logits add up from coarse to fine: the coarsest starts at half the bias, the last brings the rest.
        heads = [cast(nn.Conv3d, self.coarse[str(coarse[0])]), self.head] if coarse else [self.head]
        for head in heads:
            if config.head_bias and head.bias is not None:
                nn.init.constant_(head.bias, config.head_bias / len(heads))

    def prepare(self, skips: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Encoder features -> what the sentences share: the lowest stage upsampled, then each skip's part of its
        convolution, from low to high resolution; each [B, C, Z, Y, X]."""
        stages = self._typed()
        shared: list[Tensor] = [stages[0].up(skips[-1])]
        for stage, skip in zip(stages, reversed(skips[:-1]), strict=True):
            shared.append(stage.from_skip(skip))
        return tuple(shared)

    def forward(self, shared: Sequence[Tensor], tokens: Tensor, mask: Tensor) -> list[Tensor]:
        """Shared from `prepare` with B exams, tokens [B, S, P, D], mask [B, S, P] bool -> logits [B, S, Z, Y, X].

        The last of the list is the answer; before it those of the coarse heads, each on its own, coarser grid.
        """
        batch, sentences = tokens.shape[:2]
        flat_tokens, flat_mask = tokens.flatten(0, 1), mask.flatten(0, 1)
        x = shared[0].repeat_interleave(sentences, dim=0)
        logits: list[Tensor] = []
        for number, stage in enumerate(self._typed()):
            if number:
                x = stage.up(x)
            x = stage(x, shared[number + 1], flat_tokens, flat_mask)
            name = str(len(self.stages) - 1 - number)
            if name in self.coarse:
                logits.append(self._with_coarser(self.coarse[name](x), logits))
        logits.append(self._with_coarser(self.head(x), logits))
        return [one.reshape(batch, sentences, *one.shape[2:]) for one in logits]

    def _with_coarser(self, logits: Tensor, before: Sequence[Tensor]) -> Tensor:
        """Adds the next coarser head's logits, which hold those of the ones before it."""
        if not before:
            return logits
        return logits + interpolate(before[-1], size=logits.shape[2:], mode="trilinear", align_corners=False)

    def _typed(self) -> list[_DecoderStage]:
        return cast("list[_DecoderStage]", list(self.stages))


class _DecoderStage(nn.Module):
    """Transposed convolution, fusion, convolution with the skip, further convolutions."""

    def __init__(self, config: NetConfig, stage: int, text_channels: int):
        super().__init__()
        channels, below = config.features[stage], config.features[stage + 1]
        self.up = nn.ConvTranspose3d(below, channels, kernel_size=2, stride=2)
        options = {key: value for key, value in config.fusion.items() if key != "name"}
        self.fusion = (
            build("fusion", config.fusion["name"], channels=channels, text_channels=text_channels, **options)
            if stage in config.fusion_stages
            else None
        )
        self.from_up = nn.Conv3d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.from_skip = nn.Conv3d(channels, channels, kernel_size=3, padding=1)
        self.activate = nn.Sequential(nn.InstanceNorm3d(channels, **_NORM), nn.LeakyReLU(_SLOPE, inplace=True))
        self.rest = nn.Sequential(*(_conv_norm_act(channels) for _ in range(config.decoder_convs - 1)))

    def forward(self, x: Tensor, skip_part: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """X [B*S, C, Z, Y, X] upsampled, skip_part [B, C, Z, Y, X] -> [B*S, C, Z, Y, X]."""
        if self.fusion is not None:
            x = self.fusion(x, tokens, mask)
        x = self.from_up(x)
        exams = skip_part.shape[0]
        x = (x.reshape(exams, -1, *x.shape[1:]) + skip_part[:, None]).flatten(0, 1)
        out: Tensor = self.rest(self.activate(x))
        return out


def _conv_norm_act(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(channels, channels, kernel_size=3, padding=1),
        nn.InstanceNorm3d(channels, **_NORM),
        nn.LeakyReLU(_SLOPE, inplace=True),
    )
