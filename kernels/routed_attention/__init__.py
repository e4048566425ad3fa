"""Block-sparse attention: each region of a 3D grid attends to the regions of its list."""

from petground.kernels._shared.errors import BackendUnavailableError, KernelInputError
from petground.kernels.routed_attention.api import available_backends, routed_attention

__all__ = ["BackendUnavailableError", "KernelInputError", "available_backends", "routed_attention"]
