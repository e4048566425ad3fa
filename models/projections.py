"""The 2.5D network: two flat networks look at the exam from the side and from the front; their answers are crossed."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from petground.models.grounding import GroundingNet
from petground.models.net_config import NetConfig
from petground.models.rival_configs import ProjectionsConfig
from petground.models.unet import Decoded

__all__ = ["VIEWS", "ProjectionNet", "cross", "project"]

VIEWS = {"sagittal": 4, "coronal": 3}
"""The axis of [B, C, Z, Y, X] along which each view is projected: left-right, front-back."""


def project(image: Tensor, axis: int, config: ProjectionsConfig) -> Tensor:
    """Image [B, C, Z, Y, X] -> the same with one voxel along `axis`: PET (channel 0) by its maximum, CT by `config`."""
    pet, rest = image[:, :1], image[:, 1:]
    flat = rest.mean(axis, keepdim=True) if config.ct == "mean" else rest.amax(axis, keepdim=True)
    return torch.cat([pet.amax(axis, keepdim=True), flat], dim=1)


def cross(sagittal: Tensor, coronal: Tensor) -> Tensor:
    """Logits of the views, [B, S, Z, Y, 1] and [B, S, Z, 1, X] -> [B, S, Z, Y, X].

    A voxel belongs to the lesion when it does in both views: the masks, drawn out along their rays, are intersected,
    which is the minimum of the logits.
    """
    return torch.minimum(sagittal, coronal)


class ProjectionNet(nn.Module):
    """2.5D version of ConTEXTual Net 3D, which arXiv 2502.00528 compares it with.

    Each view is a network of its own on a grid one voxel deep: there a 3x3x1 convolution is a 3x3 one, and everything
    else, the gate, coarse heads and presence included, is as in three dimensions. In the sagittal view the patient's
    left and right fall on each other: only the coronal one can tell sides. Two lesions at one height give two crossings
    too many, and a lesion that hides behind another has no edge of its own.
    """

    def __init__(self, config: NetConfig, text_channels: int):
        super().__init__()
        self.config = config
        self.views = nn.ModuleDict(
            {name: GroundingNet(_flat(config, axis), text_channels) for name, axis in VIEWS.items()}
        )

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Image [B, C, Z, Y, X], axes in multiples of `config.divisor_zyx` -> features of both views for `decode`.

        Raises ValueError for another grid.
        """
        self.config.require_grid(image.shape)
        encoded = [
            view.encode(project(image, VIEWS[name], self.config.projections)) for name, view in self._views().items()
        ]
        return tuple(feature for features in encoded for feature in features)

    def decode(
        self, features: tuple[Tensor, ...], tokens: Tensor, token_mask: Tensor, box: Tensor | None = None
    ) -> Decoded:
        """As `GroundingNet.decode`: one stage, the crossed answer [B, S, Z, Y, X]; `parts` are what each view says.

        Presence is the mean of the views' logits.
        """
        half = len(features) // 2
        views = self._views()
        sagittal = views["sagittal"].decode(features[:half], tokens, token_mask, box)
        coronal = views["coronal"].decode(features[half:], tokens, token_mask, box)
        presence = None
        if sagittal.presence is not None and coronal.presence is not None:
            presence = 0.5 * (sagittal.presence + coronal.presence)
        return Decoded([cross(sagittal.stages[-1], coronal.stages[-1])], presence, (sagittal, coronal))

    def forward(self, image: Tensor, tokens: Tensor, token_mask: Tensor, box: Tensor | None = None) -> Tensor:
        """Image [B, C, Z, Y, X], tokens [B, S, P, D], token_mask [B, S, P] bool -> logits [B, S, Z, Y, X]."""
        return self.decode(self.encode(image), tokens, token_mask, box).stages[-1]

    def _views(self) -> dict[str, GroundingNet]:
        return {name: view for name, view in self.views.items() if isinstance(view, GroundingNet)}


def _flat(config: NetConfig, axis: int) -> NetConfig:
    """The same network on a grid that is one voxel deep along `axis` of [B, C, Z, Y, X]."""

    def one(zyx: tuple[int, int, int]) -> list[int]:
        return [1 if number == axis - 2 else n for number, n in enumerate(zyx)]

    stages = range(len(config.features))
    return replace(
        config,
        architecture="unet",
        projections=ProjectionsConfig(),
        strides=[one(config.stride_zyx(stage)) for stage in stages],
        kernel_sizes=[one(config.kernel_zyx(stage)) for stage in stages],
    )
