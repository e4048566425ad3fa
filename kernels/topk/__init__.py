"""The k highest scores of each row, ties going to the lower index."""

from petground.kernels.topk.api import TOPK_BACKENDS, topk_indices, topk_mask

__all__ = ["TOPK_BACKENDS", "topk_indices", "topk_mask"]
