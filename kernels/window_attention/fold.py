"""Pairs of places -> offsets, without scattered sums: the same bits every time, on GPUs too."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import pad

from petground.kernels.window_attention.pattern import Triple

__all__ = ["fold_pairs"]


def fold_pairs(pairs: Tensor, tile: Triple, box: Triple, before: tuple[int, ...], reach: Triple) -> Tensor:
    """Sums [H, tile, box] over all pairs of one offset -> [H, offsets].

    tile and box count places along z, y, x; the box begins `before` steps before the tile; the offset is the query's
    step less the key's, from -reach to reach. Pairs of farther offsets are left out.
    """
    x = pairs.reshape(pairs.shape[0], *tile, *box)
    for number, (start, far) in enumerate(zip(before, reach, strict=True)):
        x = _along_diagonals(x.movedim((1, 4 - number), (-2, -1)), start, far)
    return x.flatten(1)


def _along_diagonals(x: Tensor, before: int, reach: int) -> Tensor:
    """[..., Q, K] -> [..., 2 reach + 1], entry i the sum where q - k + before = i - reach."""
    queries, keys = x.shape[-2:]
    # every row one place further right than the one above: the sum down a column is one offset's
    skewed = pad(x.flip(-1), (0, queries)).flatten(-2)[..., : queries * (queries + keys - 1)]
    found = skewed.unflatten(-1, (queries, queries + keys - 1)).sum(-2)
    first = keys - 1 - before - reach
    return pad(found, (max(0, -first), 0)).narrow(-1, max(0, first), 2 * reach + 1)
