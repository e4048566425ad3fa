"""3D U-Net of the nnU-Net family with text fused in the decoder.

The encoder is nnU-Net's own (`dynamic_network_architectures`). The decoder is written here because the fusion sits
between the transposed convolution and the skip, and because everything that does not depend on the text is worked
out once for all sentences: a convolution over concatenated channels is the sum of one over the upsampled features
(per sentence) and one over the skip (once).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from dynamic_network_architectures.building_blocks.plain_conv_encoder import PlainConvEncoder
from dynamic_network_architectures.building_blocks.residual_encoders import ResidualEncoder
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from petground.models.blocks.voxel_attention import VoxelAttention
from petground.models.layers import ConvTranspose3d, InstanceNorm3d, join_pooling, upsampled
from petground.models.net_config import NetConfig
from petground.models.registry import build, find
from petground.models.sentence_heads import PresenceHead, SentenceFilter, look

__all__ = ["Decoded", "TextDecoder", "make_encoder", "run_encoder"]


class Decoded(NamedTuple):
    """What the network says: stages, logits [B, S, z, y, x] from the coarsest head to the answer on the full grid;
    presence, logits [B, S], None without a presence head; parts, what each view of a 2.5D network says on its own grid,
    one voxel deep along its ray: training judges these, and not the stages, by projections of the target."""

    stages: list[Tensor]
    presence: Tensor | None
    parts: tuple[Decoded, ...] = ()


_NORM: dict[str, Any] = {"eps": 1e-5, "affine": True}
_SLOPE = 0.01  # leaky ReLU of nnU-Net v2


def make_encoder(config: NetConfig) -> nn.Module:
    """nnU-Net's encoder; called with [B, in_channels, Z, Y, X] it returns one feature map per stage."""
    stages = len(config.features)
    blocks = config.blocks_per_stage
    common: dict[str, Any] = {
        "input_channels": config.in_channels,
        "n_stages": stages,
        "features_per_stage": list(config.features),
        "conv_op": nn.Conv3d,
        "kernel_sizes": [list(config.kernel_zyx(stage)) for stage in range(stages)],
        "strides": [list(config.stride_zyx(stage)) for stage in range(stages)],
        "conv_bias": True,
        "norm_op": InstanceNorm3d,
        "norm_op_kwargs": dict(_NORM),
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"negative_slope": _SLOPE, "inplace": True},
        "return_skips": True,
    }
    if config.encoder == "plain":
        return PlainConvEncoder(n_conv_per_stage=blocks, **common)
    encoder = ResidualEncoder(n_blocks_per_stage=blocks, **common)
    join_pooling(encoder)
    return encoder


def run_encoder(encoder: nn.Module, image: Tensor, *, checkpointing: bool) -> list[Tensor]:
    """One feature map per stage, as `encoder(image)`; with checkpointing each stage is worked out again backward."""
    if not (checkpointing and torch.is_grad_enabled()):
        return list(encoder(image))
    stem = getattr(encoder, "stem", None)
    x = image if stem is None else stem(image)
    maps = []
    for stage in cast("Sequence[nn.Module]", encoder.stages):
        x = cast(Tensor, checkpoint(stage, x, use_reentrant=False))
        maps.append(x)
    return maps


class TextDecoder(nn.Module):
    """Decoder whose named stages are fused with text; sentences share whatever does not depend on them."""

    def __init__(self, config: NetConfig, text_channels: int):
        super().__init__()
        self.config = config
        self._last = len(config.features) - 2
        self.stages = nn.ModuleList(_DecoderStage(config, stage, text_channels) for stage in range(self._last, -1, -1))
        self.head = nn.Conv3d(config.features[0], 1, kernel_size=1)
        coarse = sorted((stage for stage in config.fusion_stages if stage > 0), reverse=True)
        coarse = coarse if config.coarse_heads else []
        self.coarse = nn.ModuleDict({str(stage): nn.Conv3d(config.features[stage], 1, 1) for stage in coarse})
        # Logits add up from coarse to fine: the coarsest starts at half the bias, the last brings the rest.
        heads = [cast(nn.Conv3d, self.coarse[str(coarse[0])]), self.head] if coarse else [self.head]
        for head in heads:
            if config.head_bias and head.bias is not None:
                nn.init.constant_(head.bias, config.head_bias / len(heads))
        pooled = config.features[config.pool_stage] if config.shared_stages or config.presence else 0
        self.shared_heads = nn.ModuleDict(
            {str(stage): nn.Conv3d(config.features[stage], 1, 1) for stage in range(1, config.shared_stages)}
        )
        self.filters = nn.ModuleDict(
            {str(stage): SentenceFilter(pooled, config.features[stage]) for stage in range(config.shared_stages)}
        )
        self.presence = PresenceHead(pooled) if config.presence else None

    def prepare(self, skips: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Encoder features -> what the sentences share, each [B, C, z, y, x].

        The lowest stage upsampled, then each skip's part of its convolution (the skip itself where the stage's fusion
        reads it), from low to high resolution, as far as sentences go; with `shared_stages` the text-free features of
        those stages come last, the finest at the end. What leads to them from below is no second decoder but the
        lateral path of feature pyramids (arXiv 1612.03144, section 3): upsampled, and the skip's part added.
        """
        stages = self._typed()
        shared: list[Tensor] = [stages[0].up(skips[-1])]
        for stage, skip in zip(stages, reversed(skips[:-1]), strict=True):
            shared.append(stage.shared(skip))
        if not self.config.shared_stages:
            return tuple(shared)
        with_text = len(stages) - self.config.shared_stages
        x, free = shared[0], []
        for number, (stage, skip_part) in enumerate(zip(stages, shared[1:], strict=True)):
            x = x if number == 0 else stage.up(x)
            if number < with_text:
                x = stage.lateral(x, skip_part)
            else:
                x, _ = self._run(stage, x, skip_part, None)
                free.append(x)
        return (*shared[: with_text + 1], *free)

    def forward(self, shared: Sequence[Tensor], tokens: Tensor, mask: Tensor, box: Tensor | None = None) -> Decoded:
        """Shared from `prepare` with B exams, tokens [B, S, P, D], mask [B, S, P] bool -> logits of each head.

        A fusion may change a sentence's tokens: the finer stages read them as the coarser ones left them.
        box: [B, 2, 3], see `voxel_places`. Raises nothing: `GroundingNet` checks.
        """
        batch, sentences = tokens.shape[:2]
        text: _Text | None = _Text(tokens.flatten(0, 1), mask.flatten(0, 1), box)
        x = _each(shared[0], sentences)
        logits: list[Tensor] = []
        pooled: Tensor | None = None
        for number, stage in enumerate(self._typed()):
            level = self._last - number
            if level < self.config.shared_stages:
                break
            x, text = self._run(stage, x if number == 0 else stage.up(x), shared[number + 1], text)
            if str(level) in self.coarse:
                logits.append(_with_coarser(self.coarse[str(level)](x), logits))
            if (self.filters or self.presence is not None) and level == self.config.pool_stage:
                pooled = look(x, logits[-1])
        if pooled is not None:
            looked = pooled.reshape(batch, sentences, -1)
            for level in range(self.config.shared_stages - 1, -1, -1):
                head = self.shared_heads[str(level)] if level else self.head
                answer = self.filters[str(level)](shared[-1 - level], looked, head)
                logits.append(_with_coarser(answer.flatten(0, 1)[:, None], logits))
        if not self.filters:
            logits.append(_with_coarser(self.head(x), logits))
        presence = self.presence(pooled) if self.presence is not None and pooled is not None else None
        return Decoded(
            [one.reshape(batch, sentences, *one.shape[2:]) for one in logits],
            None if presence is None else presence.reshape(batch, sentences),
        )

    def _run(self, stage: _DecoderStage, x: Tensor, shared: Tensor, text: _Text | None) -> tuple[Tensor, _Text | None]:
        if self.config.checkpointing and torch.is_grad_enabled():
            return cast("tuple[Tensor, _Text | None]", checkpoint(stage, x, shared, text, use_reentrant=False))
        return cast("tuple[Tensor, _Text | None]", stage(x, shared, text))

    def _typed(self) -> list[_DecoderStage]:
        return cast("list[_DecoderStage]", list(self.stages))


class _Text(NamedTuple):
    """tokens [B*S, P, D], mask [B*S, P] bool, box [B, 2, 3] or None."""

    tokens: Tensor
    mask: Tensor
    box: Tensor | None


class _DecoderStage(nn.Module):
    """Transposed convolution, fusion, convolution with the skip, further convolutions."""

    def __init__(self, config: NetConfig, stage: int, text_channels: int):
        super().__init__()
        channels, below = config.features[stage], config.features[stage + 1]
        stride, kernel = config.stride_zyx(stage + 1), config.kernel_zyx(stage)
        self.up = ConvTranspose3d(below, channels, kernel_size=stride, stride=stride)
        self.fusion = _block(config, "fusion", stage, channels=channels, text_channels=text_channels)
        self._fusion_reads_skip = self.fusion is not None and "skip" in find("fusion", config.fusion["name"]).serves
        same = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.from_up = nn.Conv3d(channels, channels, kernel, padding=same, bias=False)
        self.from_skip = nn.Conv3d(channels, channels, kernel, padding=same)
        self.activate = nn.Sequential(InstanceNorm3d(channels, **_NORM), nn.LeakyReLU(_SLOPE, inplace=True))
        self.mixer = _block(config, "mixer", stage, channels=channels)
        self.voxels = _voxel_attention(config, stage, channels, text_channels)
        self.spacing_zyx_mm = config.stage_spacing_zyx_mm(stage)
        self.rest = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv3d(channels, channels, kernel, padding=same),
                    InstanceNorm3d(channels, **_NORM),
                    nn.LeakyReLU(_SLOPE, inplace=True),
                )
                for _ in range(config.decoder_convs - 1)
            )
        )

    def shared(self, skip: Tensor) -> Tensor:
        """What all sentences of an exam need of the encoder's features [B, C, Z, Y, X]."""
        return skip if self._fusion_reads_skip else cast(Tensor, self.from_skip(skip))

    def lateral(self, x: Tensor, shared: Tensor) -> Tensor:
        """X [B, C, Z, Y, X] upsampled, what `shared` gave -> features of that grid without text, [B, C, Z, Y, X]."""
        activated: Tensor = self.activate(x + (self.from_skip(shared) if self._fusion_reads_skip else shared))
        return activated

    def forward(self, x: Tensor, shared: Tensor, text: _Text | None) -> tuple[Tensor, _Text | None]:
        """X [B*S, C, Z, Y, X] upsampled, what `shared` gave [B, C, Z, Y, X] -> [B*S, C, Z, Y, X], the text as fused.

        Without text: no fusion.
        """
        if self.fusion is not None and text is not None:
            given = {"skip": shared} if self._fusion_reads_skip else {}
            x, tokens = self.fusion(x, text.tokens, text.mask, text.box, **given)
            text = text._replace(tokens=tokens)
        skip_part = self.from_skip(shared) if self._fusion_reads_skip else shared
        x = self.from_up(x)
        exams = skip_part.shape[0]
        x = (x.reshape(exams, -1, *x.shape[1:]) + skip_part[:, None]).flatten(0, 1)
        out: Tensor = self.rest(self.activate(x))
        if self.mixer is not None:
            out = self.mixer(out)
        if self.voxels is not None:
            words = (None, None) if text is None else (text.tokens, text.mask)
            out = self.voxels(out, *words, self.spacing_zyx_mm)
        return out, text


def _block(config: NetConfig, slot: str, stage: int, **given: Any) -> nn.Module | None:
    """The slot's block for a stage, None where the config has none there."""
    block = getattr(config, slot)
    if stage not in config.stages_of(slot):
        return None
    return build(slot, block["name"], **given, **config.options_of(slot, stage))


def _voxel_attention(config: NetConfig, stage: int, channels: int, text_channels: int) -> nn.Module | None:
    attention = _block(config, "attention", stage, channels=channels)
    if attention is None or config.attention is None:
        return None
    reduction = _block(config, "token_reduction", stage, channels=channels) if config.token_reduction else None
    needs_grid = "grid" in find("attention", config.attention["name"]).serves
    heads = int(config.attention.get("num_heads", 1))
    words = None if stage < config.shared_stages else text_channels
    return VoxelAttention(channels, words, heads, attention, reduction, needs_grid=needs_grid)


def _with_coarser(logits: Tensor, before: Sequence[Tensor]) -> Tensor:
    """Adds the next coarser head's logits, which hold those of the ones before it."""
    if not before:
        return logits
    return logits + upsampled(before[-1], (logits.shape[2], logits.shape[3], logits.shape[4]))


def _each(x: Any, sentences: int) -> Any:
    """[B, ...] -> [B*S, ...], each exam's row once per sentence."""
    return x if x is None or sentences == 1 else x.repeat_interleave(sentences, dim=0)
