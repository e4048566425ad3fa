"""Attention from few queries (text tokens, learned latents) to very many keys (voxels)."""

from petground.kernels._shared.errors import BackendUnavailableError, KernelInputError
from petground.kernels.text_to_voxel.api import available_backends, text_to_voxel

__all__ = ["BackendUnavailableError", "KernelInputError", "available_backends", "text_to_voxel"]
