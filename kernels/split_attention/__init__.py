"""The exact merge of softmax attention over parts of the keys, and by it every prefix of them at once."""

from petground.kernels.split_attention.api import prefix_attention
from petground.kernels.split_attention.reference import Part, finish, merge

__all__ = ["Part", "finish", "merge", "prefix_attention"]
