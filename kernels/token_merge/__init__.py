"""Fewer tokens and the way back: gather and scatter by place, merge and un-merge by group."""

from petground.kernels.token_merge.api import (
    TOKEN_MERGE_BACKENDS,
    gather_tokens,
    merge_tokens,
    scatter_tokens,
    unmerge_tokens,
)

__all__ = ["TOKEN_MERGE_BACKENDS", "gather_tokens", "merge_tokens", "scatter_tokens", "unmerge_tokens"]
