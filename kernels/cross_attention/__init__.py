"""Cross-attention from voxels to text tokens."""

from petground.kernels.cross_attention.api import (
    BackendUnavailableError,
    KernelInputError,
    available_backends,
    cross_attention,
)

__all__ = ["BackendUnavailableError", "KernelInputError", "available_backends", "cross_attention"]
