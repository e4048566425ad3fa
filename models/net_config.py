"""What a grounding network is made of, as a typed config that a checkpoint carries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from inspect import signature
from typing import Any, Literal

import torch

from petground.models.registry import BlockError, build, check_options, find, held
from petground.models.rival_configs import LLMSegConfig, ProjectionsConfig

__all__ = ["NetConfig"]

PLACED = ("attention", "mixer")  # slots whose `stages` tell where they go; elsewhere it can be an option of the block's


@dataclass(frozen=True)
class NetConfig:
    """A grounding network. The defaults are those of ConTEXTual Net 3D (arXiv 2502.00528).

    Args:
        architecture: "unet", text gates in a 3D U-Net; "projections", the same on two projections (2.5D); or "llmseg",
            which reads only `features`, `in_channels`, `head_bias`, `checkpointing` and `llmseg`.
        features: channels of each stage, from full to lowest resolution; llmseg's first stage has half of the full.
        encoder: nnU-Net's residual or plain convolutional encoder.
        blocks_per_stage: residual blocks (or convolutions, when plain) of the encoder stages, one number or one each.
        strides: how many times smaller each stage's grid is than the one before, [z, y, x] each, the first all ones;
            halves every axis by default.
        kernel_sizes: of each stage's convolutions, [z, y, x] each, odd; 3 by default.
        decoder_convs: convolutions in each decoder stage.
        fusion: the block that fuses text, by name, and its options, e.g. {name: contextual_gate, num_heads: 4}.
            An option can be a block, too: {name: contextual_gate, attention: {name: agent}}. In every slot it can
            differ by stage, {stage: value}: {name: p_mod, layers: 4, layer: {2: 1, 1: 2}}; but attention's num_heads.
        fusion_stages: stages whose decoder has the block; 0 is full resolution, the last stage has no decoder.
        attention: self-attention among the voxels of decoder stages, after their convolutions: a block by name, its
            options, `num_heads`, and `stages` (those of `fusion_stages` by default), e.g.
            {name: softmax, num_heads: 4, stages: [3]}; null: none.
        token_reduction: fewer voxels in that attention, where that is: a block by name and its options; null: all.
        mixer: a block by name, its options and `stages`, after the convolutions; null: none.
        spacing_zyx_mm: of a voxel of the full grid, for blocks that work in mm; a stage's is this times its strides.
            Training fills it in from `model.grid`. null: not known, 1 mm.
        in_channels: image channels (PET, CT).
        head_bias: logit that every voxel starts with. Lesions are one voxel in some thousand: with -7 the first steps
            are not spent on learning that (as in the focal loss paper, arXiv 1708.02002, section 4.1).
        coarse_heads: each fused stage says where, too, on its own grid: its logits, brought to full resolution, are
            added to the last ones, and training judges each (deep supervision, as in nnU-Net). Text then reaches the
            answer on a short way. Not in the paper.
        shared_stages: so many of the finest decoder stages run once per exam, without text, for all its sentences: a
            sentence chooses among their features by filters of its own, one per stage (as in MaskFormer, arXiv
            2107.06278, section 3.2), and adds its coarse logits. Below them the image's features come up by upsampling
            and adding alone (feature pyramids, arXiv 1612.03144, section 3). 0 is the paper's: every stage runs for
            every sentence. Needs coarse_heads.
        presence: a head that says whether the thing is there at all, from the features where the sentence looks.
            Needs coarse_heads.
        checkpointing: training keeps the features between stages only and works the rest out again: less memory.
        projections: what only the 2.5D network has.
        llmseg: what only LLMSeg has.
    """

    architecture: Literal["unet", "projections", "llmseg"] = "unet"
    features: list[int] = field(default_factory=lambda: [64, 96, 128, 192, 256])
    encoder: Literal["residual", "plain"] = "residual"
    blocks_per_stage: int | list[int] = 2
    strides: list[list[int]] | None = None
    kernel_sizes: list[list[int]] | None = None
    decoder_convs: int = 2
    fusion: dict[str, Any] = field(default_factory=lambda: {"name": "contextual_gate"})
    fusion_stages: list[int] = field(default_factory=lambda: [1, 2, 3])
    attention: dict[str, Any] | None = None
    token_reduction: dict[str, Any] | None = None
    mixer: dict[str, Any] | None = None
    spacing_zyx_mm: tuple[float, float, float] | None = None
    in_channels: int = 2
    head_bias: float = 0.0
    coarse_heads: bool = False
    shared_stages: int = 0
    presence: bool = False
    checkpointing: bool = False
    projections: ProjectionsConfig = field(default_factory=ProjectionsConfig)
    llmseg: LLMSegConfig = field(default_factory=LLMSegConfig)

    def __post_init__(self) -> None:
        self._nest("projections", ProjectionsConfig)
        self._nest("llmseg", LLMSegConfig)
        if self.spacing_zyx_mm is not None:
            spacing = tuple(float(mm) for mm in self.spacing_zyx_mm)
            if len(spacing) != 3 or not all(0 < mm < math.inf for mm in spacing):
                raise BlockError(f"spacing_zyx_mm {self.spacing_zyx_mm}: three positive numbers, in mm")
            object.__setattr__(self, "spacing_zyx_mm", spacing)
        self._check_architecture()
        if self.architecture != "llmseg":
            self._check_unet()

    def _nest(self, name: str, kind: type) -> None:
        value = getattr(self, name)
        if isinstance(value, Mapping):  # what a checkpoint hands back
            object.__setattr__(self, name, kind(**value))

    def _check_architecture(self) -> None:
        stages = len(self.features)
        if stages < 2 or min(self.features) < 1:
            raise BlockError(f"features {self.features}: at least two stages of at least one channel")
        for option in fields(self):
            default = option.default if option.default_factory is MISSING else option.default_factory()
            if not self._reads(option.name) and getattr(self, option.name) != default:
                raise BlockError(f"architecture {self.architecture} does not read {option.name}; leave it out")
        heads = self.llmseg.num_heads
        if self.architecture == "llmseg" and any(n % (2 * heads) for n in self.features):
            raise BlockError(f"features {self.features}: llmseg with {heads} heads needs multiples of {2 * heads}")

    def _reads(self, option: str) -> bool:
        if self.architecture == "llmseg":
            return option in ("architecture", "features", "in_channels", "head_bias", "checkpointing", "llmseg")
        return option not in ("projections", "llmseg") or option == self.architecture

    def _check_unet(self) -> None:
        stages = len(self.features)
        if any(stage not in range(stages - 1) for stage in self.fusion_stages):
            raise BlockError(f"fusion_stages {self.fusion_stages} not all in 0..{stages - 2}")
        if isinstance(self.blocks_per_stage, list) and len(self.blocks_per_stage) != stages:
            raise BlockError(f"blocks_per_stage {self.blocks_per_stage}: one number for each of {stages} stages")
        for name in ("strides", "kernel_sizes"):
            rows = getattr(self, name)
            if rows is not None and (len(rows) != stages or any(len(row) != 3 or min(row) < 1 for row in rows)):
                raise BlockError(f"{name} {rows}: [z, y, x] for each of {stages} stages")
        if any(n != 1 for n in self.stride_zyx(0)):
            raise BlockError(f"strides {self.strides}: the first stage keeps the grid, [1, 1, 1]")
        if any(n % 2 == 0 for stage in range(stages) for n in self.kernel_zyx(stage)):
            raise BlockError(f"kernel_sizes {self.kernel_sizes}: odd numbers only")
        for slot in ("fusion", "attention", "token_reduction", "mixer"):
            self._check_block(slot, getattr(self, slot))
        if self.token_reduction is not None and self.attention is None:
            raise BlockError("token_reduction reduces the tokens of the voxels' attention: name an attention, too")
        self._check_heads(stages)
        self._check_text_free()

    def _check_block(self, slot: str, block: dict[str, Any] | None) -> None:
        if block is None:
            return
        if not isinstance(block.get("name"), str):
            raise BlockError(f"{slot} needs a name; `petground blocks --slot {slot}` lists them")
        stages = block.get("stages", [])
        if slot in PLACED and not (isinstance(stages, list) and all(type(stage) is int for stage in stages)):
            raise BlockError(f"{slot} '{block['name']}': stages is {stages!r}, expected a list of whole numbers")
        if any(stage not in range(len(self.features) - 1) for stage in self.stages_of(slot)):
            raise BlockError(f"{slot}: stages {block['stages']} not all in 0..{len(self.features) - 2}")
        for stage in self.stages_of(slot) or [0]:
            self._check_options(slot, block, self.options_of(slot, stage))

    def _check_options(self, slot: str, block: dict[str, Any], options: dict[str, Any]) -> None:
        if "stages" in options and "stages" not in signature(find(slot, block["name"]).cls).parameters:
            where = "fusion_stages" if slot == "fusion" else "attention's stages"
            raise BlockError(f"{slot} '{block['name']}' has no stages; {where} tells where it goes")
        if slot == "attention":
            heads = options.pop("num_heads", 1)  # the network's, also for blocks that do not ask for it
            if type(heads) is not int:
                raise BlockError(f"attention '{block['name']}': num_heads is {heads!r}, expected int")
        check_options(slot, block["name"], options)

    def options_of(self, slot: str, stage: int) -> dict[str, Any]:
        """The slot's options that are its block's own: less its name and, where the slot has them, its stages."""
        block: dict[str, Any] = getattr(self, slot) or {}
        placed = ("name", "stages") if slot in PLACED else ("name",)
        return {key: self._at(stage, slot, key, value) for key, value in block.items() if key not in placed}

    def _at(self, stage: int, slot: str, option: str, value: Any) -> Any:
        """The stage's own where an option differs by stage; JSON makes words of the numbers."""
        network = (slot, option) == ("attention", "num_heads")  # the network's own: one for all stages
        if network or not isinstance(value, Mapping) or not all(str(key).isdigit() for key in value):
            return value
        told, stages = {int(key): one for key, one in value.items()}, self.stages_of(slot)
        if told.keys() != set(stages):
            raise BlockError(f"{slot}: {option} is told for stages {sorted(told)}; give one for each of {stages}")
        return told[stage]

    def stages_of(self, slot: str) -> list[int]:
        """Decoder stages that have the slot's block."""
        block = self.attention if slot == "token_reduction" else getattr(self, slot)
        if block is None or getattr(self, slot) is None:
            return []
        return list(block.get("stages", self.fusion_stages)) if slot != "fusion" else self.fusion_stages

    def _check_text_free(self) -> None:
        """Shared stages run once per exam: there is no sentence to ask."""
        stages = [stage for stage in self.stages_of("token_reduction") if stage < self.shared_stages]
        if self.token_reduction is None or not stages:
            return
        name = self.token_reduction["name"]
        for stage in stages:
            options = self.options_of("token_reduction", stage)
            with torch.device("meta"):
                reduction = build("token_reduction", name, channels=self.features[stage], **options)
            if reduction.text_use == "needs":
                raise BlockError(
                    f"token_reduction '{name}' asks the sentence, but with shared_stages {self.shared_stages} stage "
                    f"{stage} runs once per exam, without one: set shared_stages: 0, or choose other stages or a "
                    "reduction that needs no text"
                )

    def _check_heads(self, stages: int) -> None:
        if not 0 <= self.shared_stages < stages - 1:
            raise BlockError(f"shared_stages {self.shared_stages} not in 0..{stages - 2}")
        if not (self.shared_stages or self.presence):
            return
        if not self.coarse_heads or not any(stage > 0 for stage in self.fusion_stages):
            raise BlockError("shared_stages and presence need coarse_heads: true and a fusion stage of 1 or more")
        if self.shared_stages and self.shared_stages != min(self.fusion_stages):
            raise BlockError(
                f"shared_stages {self.shared_stages}: the finest of fusion_stages {self.fusion_stages} must be the same"
            )

    @property
    def idle(self) -> list[str]:
        """When parameters may get no gradient in a training step, "key: when": see `Block.idle`."""
        if self.architecture == "llmseg":
            return []
        blocks = []
        for slot in ("fusion", "attention", "token_reduction", "mixer"):
            for stage in self.stages_of(slot):
                block = find(slot, getattr(self, slot)["name"])
                blocks += [block, *(inner for inner, _ in held(block, self.options_of(slot, stage)).values())]
        return list(dict.fromkeys(f"{block.key}: {when}" for block in blocks for when in block.idle.values()))

    @property
    def pool_stage(self) -> int:
        """The fused stage on whose grid a sentence's features are gathered, for its filter and its presence."""
        return self.shared_stages or min(stage for stage in self.fusion_stages if stage > 0)

    @property
    def divisor_zyx(self) -> tuple[int, int, int]:
        """Each axis of the grid must be a multiple of its number here."""
        if self.architecture == "llmseg":
            return (2 ** len(self.features),) * 3
        strides = [self.stride_zyx(stage) for stage in range(len(self.features))]
        z, y, x = (math.prod(stride[axis] for stride in strides) for axis in range(3))
        return z, y, x

    def fits(self, grid_zyx: Sequence[int]) -> bool:
        """True when the network takes such a grid."""
        return all(n % d == 0 for n, d in zip(grid_zyx, self.divisor_zyx, strict=True))

    def require_grid(self, shape: Sequence[int]) -> None:
        """Raises ValueError when an image of this shape is not [B, C, Z, Y, X] on a grid that fits."""
        if len(shape) != 5 or not self.fits(shape[2:]):
            raise ValueError(f"image {tuple(shape)}: [B, C, Z, Y, X] with axes in multiples of {self.divisor_zyx}")

    def stride_zyx(self, stage: int) -> tuple[int, int, int]:
        """From the stage before to this one."""
        if self.strides is None:
            return (2, 2, 2) if stage else (1, 1, 1)
        z, y, x = self.strides[stage]
        return z, y, x

    def stage_spacing_zyx_mm(self, stage: int) -> tuple[float, float, float]:
        """Of a voxel of this stage's grid."""
        strides = [self.stride_zyx(number) for number in range(stage + 1)]
        full = self.spacing_zyx_mm or (1.0, 1.0, 1.0)
        z, y, x = (full[axis] * math.prod(stride[axis] for stride in strides) for axis in range(3))
        return z, y, x

    def kernel_zyx(self, stage: int) -> tuple[int, int, int]:
        """Of this stage's convolutions."""
        if self.kernel_sizes is None:
            return 3, 3, 3
        z, y, x = self.kernel_sizes[stage]
        return z, y, x
