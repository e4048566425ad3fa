"""Softmax attention over keys in parts, and the exact merge of what the parts leave."""

from petground.kernels.split_attention.api import available_backends, split_attention
from petground.kernels.split_attention.reference import Part, attend_part, finish, merge, prefix_attention

__all__ = ["Part", "attend_part", "available_backends", "finish", "merge", "prefix_attention", "split_attention"]
