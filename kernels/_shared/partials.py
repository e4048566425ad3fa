"""Attention over parts of the keys, put together exactly.

A part s has, for each query, its largest score m_s, its sum l_s = sum exp(score - m_s) and its accumulated values
a_s = sum exp(score - m_s) v. With m = max m_s the whole is sum(exp(m_s - m) a_s) / sum(exp(m_s - m) l_s), as in the
online softmax (Milakov and Gimelshein 2018, arXiv 1805.02867, section 3.1; Dao et al., Flash-Decoding 2023).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["LOG2E", "merge_softmax_parts"]

LOG2E = 1.4426950408889634


def merge_softmax_parts(peak: Tensor, total: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Peak m and total l [S, ...], values a [S, ..., E] of S parts -> (answer [..., E], log2-sum-exp [...]).

    Scores are in units of log 2 (exp2, as kernels compute them). A part without keys has peak -inf, total and values
    zero. A query without any key gives zero, and log2-sum-exp 0 (its weights are masked wherever it is used).
    """
    top = peak.amax(dim=0)
    empty = torch.isneginf(top)
    weight = torch.exp2(peak - top.masked_fill(empty, 0.0))
    whole = (weight * total).sum(dim=0)
    answer = (weight.unsqueeze(-1) * values).sum(dim=0) / whole.masked_fill(empty, 1.0).unsqueeze(-1)
    return answer, torch.where(empty, 0.0, top + torch.log2(whole.masked_fill(empty, 1.0)))
