"""Cross-attention from voxels to text tokens."""

from petground.kernels.cross_attention.api import (
    GATES,
    BackendUnavailableError,
    KernelInputError,
    available_backends,
    cross_attention,
    fold_output,
    works_channels_first,
)

__all__ = [
    "GATES",
    "BackendUnavailableError",
    "KernelInputError",
    "available_backends",
    "cross_attention",
    "fold_output",
    "works_channels_first",
]
