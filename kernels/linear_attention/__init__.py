"""Linear attention: feature-mapped queries and keys, with or without decay, order and normalisation."""

from petground.kernels.linear_attention.api import available_backends, linear_attention, linear_attention_carried

__all__ = ["available_backends", "linear_attention", "linear_attention_carried"]
