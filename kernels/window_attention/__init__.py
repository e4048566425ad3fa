"""Attention over windows (plain, shifted, with a halo, of voxels apart) and neighbourhoods of a 3D grid."""

from petground.kernels._shared.errors import BackendUnavailableError, KernelInputError
from petground.kernels.window_attention.api import available_backends, neighbourhood_attention, window_attention

__all__ = [
    "BackendUnavailableError",
    "KernelInputError",
    "available_backends",
    "neighbourhood_attention",
    "window_attention",
]
