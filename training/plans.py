"""A network and its patch as nnU-Net planned them: what `model.plans` names is read from a plans.json of nnunetv2.

nnU-Net keeps arrays as [z, y, x] of the file, turned by `transpose_forward`; here plans are turned back, so that they
count along z, y, x like all of `training`. How nnU-Net normalises intensities and resamples is not taken over: PET is
SUV in a fixed window here (see `GridSpec`), for a model must know what SUV 5 is in every exam.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from petground.labeling.errors import ConfigError, InputError
from petground.models.net_config import NetConfig
from petground.training.grid import GridSpec

__all__ = ["PlansConfig", "require_fit", "resolve", "with_spacing"]

FUSED = 3  # coarsest decoder stages, where voxels are few and see much; never the full resolution
_ARCH = "architecture.arch_kwargs"
_MUST_BE = {"conv_op": "Conv3d", "norm_op": "InstanceNorm3d", "nonlin": "LeakyReLU"}
_ENCODERS: dict[str, tuple[Literal["residual", "plain"], str]] = {
    "ResidualEncoderUNet": ("residual", "n_blocks_per_stage"),
    "PlainConvUNet": ("plain", "n_conv_per_stage"),
}


@dataclass(frozen=True)
class PlansConfig:
    """Which plans, and where in their network the text goes.

    Args:
        file: plans.json of nnunetv2's planner: `petground plans`, or a file of nnUNet_preprocessed.
        configuration: of the plans, e.g. 3d_fullres or 3d_lowres.
        fusion_stages: decoder stages that read the text; null: the three coarsest, but never the full resolution;
            none ([]) leaves the plain network, which reads nothing, shares nothing and has no presence head.
    """

    file: Path
    configuration: str = "3d_fullres"
    fusion_stages: list[int] | None = None


def resolve(plans: PlansConfig, net: NetConfig, grid: GridSpec) -> tuple[NetConfig, GridSpec]:
    """`net` with the plans' encoder, features, blocks, strides and kernels, `grid` with their spacing and patch.

    What the plans do not tell stays: fusion block, heads, windows. Where `net` shares its finest stages among
    sentences, all stages finer than the fused ones are shared. Raises InputError for a file that is missing or no
    plans, ConfigError that names the key where the plans are not of a 3D U-Net that can be built here.
    """
    if net.architecture != "unet":
        raise ConfigError(f"plans are of a U-Net, not of architecture {net.architecture}", fix="leave model.plans out")
    name = Path(plans.file).name
    found, turn = _configuration(plans)
    network = str(_at(found, "architecture.network_class_name", name)).rsplit(".", 1)[-1]
    if network not in _ENCODERS:
        raise _foreign(name, "architecture.network_class_name", network, " or ".join(_ENCODERS))
    for key, wanted in _MUST_BE.items():
        value = str(_at(found, f"{_ARCH}.{key}", name)).rsplit(".", 1)[-1]
        if value != wanted:
            raise _foreign(name, f"{_ARCH}.{key}", value, wanted)
    if _at(found, f"{_ARCH}.dropout_op", name) is not None:
        raise _foreign(name, f"{_ARCH}.dropout_op", "set", "null")
    encoder, blocks = _ENCODERS[network]
    stages = int(_at(found, f"{_ARCH}.n_stages", name))
    decoder = set(_each(_at(found, f"{_ARCH}.n_conv_per_stage_decoder", name), stages - 1))
    if len(decoder) != 1:
        raise _foreign(name, f"{_ARCH}.n_conv_per_stage_decoder", sorted(decoder), "the same number for every stage")
    coarsest = list(range(max(1, stages - 1 - FUSED), stages - 1)) or [0]
    fused = coarsest if plans.fusion_stages is None else plans.fusion_stages
    planned = replace(
        net,
        features=[int(n) for n in _at(found, f"{_ARCH}.features_per_stage", name)],
        encoder=encoder,
        blocks_per_stage=_each(_at(found, f"{_ARCH}.{blocks}", name), stages),
        strides=[_turned(row, turn) for row in _each(_at(found, f"{_ARCH}.strides", name), stages)],
        kernel_sizes=[_turned(row, turn) for row in _each(_at(found, f"{_ARCH}.kernel_sizes", name), stages)],
        decoder_convs=decoder.pop(),
        fusion_stages=fused,
        shared_stages=min(fused, default=0) if net.shared_stages else 0,
        presence=net.presence and bool(fused),
    )
    z, y, x = (float(mm) for mm in _turned(_at(found, "spacing", name), turn))
    patch = [int(n) for n in _turned(_at(found, "patch_size", name), turn)]
    return planned, replace(grid, spacing_xyz_mm=(x, y, z), patch_zyx=(patch[0], patch[1], patch[2]), fit_height=False)


def require_fit(net: NetConfig, grid: GridSpec) -> None:
    """Raises ConfigError when the network cannot take what the grid gives it."""
    if not net.fits(grid.input_zyx):
        name = "shape_zyx" if grid.patch_zyx is None else "patch_zyx"
        raise ConfigError(
            f"grid {name} {tuple(grid.input_zyx)} and {len(net.features)} stages do not fit",
            fix=f"axes (z, y, x) must be multiples of {net.divisor_zyx}",
        )
    if grid.patch_zyx is not None and net.architecture == "projections":
        raise ConfigError("projections are of whole exams", fix="set model.grid.patch_zyx: null")


def with_spacing(net: NetConfig, grid: GridSpec) -> NetConfig:
    """`net` told how large the voxels of `grid` are, for blocks that work in mm.

    With `grid.fit_height` an exam's own z spacing follows its body: the network is told the configured one. Raises
    ConfigError when the network was told another spacing.
    """
    spacing = tuple(float(mm) for mm in reversed(grid.spacing_xyz_mm))
    if net.spacing_zyx_mm not in (None, spacing):
        raise ConfigError(
            f"net.spacing_zyx_mm {net.spacing_zyx_mm}, but the grid's voxels are {spacing} mm (z, y, x)",
            fix="leave model.net.spacing_zyx_mm out: it follows model.grid.spacing_xyz_mm",
        )
    return net if net.architecture == "llmseg" else replace(net, spacing_zyx_mm=spacing)


def _configuration(plans: PlansConfig) -> tuple[Mapping[str, Any], Sequence[int]]:
    """The configuration with what it inherits, and for each of its axes which of z, y, x it is."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    path = Path(plans.file)
    if not path.is_file():
        raise InputError(f"no plans at {path}", fix="make them: petground plans nnUNet_raw/DatasetXXX_Name --out FILE")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError("not a JSON file", case=path.name, fix="give nnU-Net's plans.json") from error
    every = _at(content, "configurations", path.name)
    if not isinstance(every, dict) or plans.configuration not in every:
        known = ", ".join(every) if isinstance(every, dict) else "none"
        raise ConfigError(f"{path.name}: no configuration '{plans.configuration}'", fix=f"one of {known}")
    turn = [int(axis) for axis in content.get("transpose_forward", (0, 1, 2))]
    if sorted(turn) != [0, 1, 2]:
        raise _foreign(path.name, "transpose_forward", turn, "an order of 0, 1, 2")
    try:
        with warnings.catch_warnings():  # of the plans' older format, which it brings to today's
            warnings.simplefilter("ignore")
            found: Mapping[str, Any] = PlansManager(content).get_configuration(plans.configuration).configuration
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        told = str(error.args[0]) if error.args else type(error).__name__
        raise ConfigError(
            f"{path.name}: configurations.{plans.configuration} cannot be read: {told}",
            fix="plan again with nnunetv2 of today",
        ) from error
    size = _at(found, "patch_size", path.name)
    if len(size) != 3:
        raise _foreign(path.name, "patch_size", size, "three axes; name a 3d configuration")
    return found, turn


def _at(found: Any, key: str, name: str) -> Any:
    """The value at a dotted key."""
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            raise ConfigError(f"{name}: no '{key}'", fix="give a plans.json of nnunetv2's planner")
        found = found[part]
    return found


def _each(value: Any, stages: int) -> list[Any]:
    """One value for each stage; nnU-Net allows one for all."""
    return list(value) if isinstance(value, (list, tuple)) else [value] * stages


def _turned(row: Any, turn: Sequence[int]) -> list[Any]:
    """Values along the plans' axes -> along z, y, x."""
    values = _each(row, 3)
    out: list[Any] = [None, None, None]
    for value, axis in zip(values, turn, strict=True):
        out[axis] = value
    return out


def _foreign(name: str, key: str, value: object, wanted: str) -> ConfigError:
    return ConfigError(
        f"{name}: {key} is {value}, this can be built: {wanted}", fix="plan with nnunetv2's own planners"
    )
