"""Sliding-window inference: an exam larger than the network's patch, every sentence answered in one pass over it.

Each window is encoded once and all sentences are decoded from it. Logits are averaged with Gaussian weights as in
nnU-Net (Isensee et al. 2021), but the weights of all windows over a voxel are made to sum to one beforehand, per axis
and in float64: nothing is divided afterwards, a voxel in the exam's corner that only one window sees keeps that
window's answer, and a single window gives exactly what the network says to it. (nnU-Net adds up in float16, whose
smallest weights are subnormal there.)

Memory: windows go from the feet to the head, and a slice that no later window reaches is given out at once. Held are
`held_bytes` per sentence (a patch's depth of whole slices, float32), for at most `HELD` bytes of sentences at a time,
and one window's features. The answers go to an array in memory, or beyond `IN_MEMORY` bytes to a temporary file.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from itertools import product
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from petground.models.unet import Decoded
from petground.training.patches import box_of, cut

__all__ = ["Answers", "axis_weights", "held_bytes", "room", "slide", "window_starts"]

HELD = 2**30  # bytes of logits added up at once, over sentences
IN_MEMORY = 2**29  # bytes of answers kept in memory; more go to a temporary file
SIGMA = 1 / 8  # of the patch: nnU-Net's

Grid = tuple[int, int, int]
Tick = Callable[[int, int], None]


class Answers(NamedTuple):
    """probabilities [S, Z, Y, X] float32 in 0..1, maybe a file's; presence [S] in 0..1, None without such a head."""

    probabilities: NDArray[np.float32]
    presence: NDArray[np.float32] | None


def window_starts(length: int, patch: int, step: float) -> list[int]:
    """First voxels of the windows along an axis: evenly laid, at most step * patch apart, from end to end."""
    last = length - patch
    if last < 0:
        raise ValueError(f"an axis of {length} voxels is shorter than the patch of {patch}")
    count = math.ceil(last / max(1.0, patch * step)) + 1
    return [round(last * n / (count - 1)) for n in range(count)] if count > 1 else [0]


def axis_weights(starts: Sequence[int], patch: int) -> dict[int, NDArray[np.float64]]:
    """{start: [patch]}: each window's Gaussian over the sum of all windows' at the same voxel."""
    bell = np.exp(-0.5 * ((np.arange(patch) - (patch - 1) / 2) / (SIGMA * patch)) ** 2)
    total = np.zeros(max(starts) + patch)
    for start in starts:
        total[start : start + patch] += bell
    return {start: bell / total[start : start + patch] for start in starts}


def held_bytes(grid_zyx: Sequence[int], patch_zyx: Sequence[int]) -> int:
    """Of logits that are not yet complete, for each sentence."""
    return 4 * min(grid_zyx[0], patch_zyx[0]) * grid_zyx[1] * grid_zyx[2]


def slide(
    encode: Callable[[Tensor], Any],
    decode: Callable[[Any, Tensor, Tensor, Tensor], Decoded],
    image: NDArray[np.floating[Any]],
    tokens: Tensor,
    mask: Tensor,
    *,
    patch_zyx: Grid,
    step: float = 0.5,
    near: Sequence[tuple[float, float] | None] | None = None,
    chunk: int = 8,
    tick: Tick | None = None,
) -> Answers:
    """Image [C, Z, Y, X], tokens [S, P, D] and mask [S, P] on the network's device -> answers to S sentences.

    encode: [1, C, *patch] -> features; decode: (features, tokens [1, s, P, D], mask [1, s, P], box [1, 2, 3]) ->
    Decoded, at most `chunk` sentences at a time. near: for each sentence the lowest and highest z (voxels) that matter
    to it: only windows that hold a slice of them are asked, elsewhere its probability is 0; None: everywhere.
    tick(done, total) is called after each window. Raises ValueError for an image smaller than a patch.
    """
    grid: Grid = (image.shape[1], image.shape[2], image.shape[3])
    sentences = len(tokens)
    out = room((sentences, *grid))
    presence = np.full(sentences, np.nan, dtype=np.float32)
    group = max(1, HELD // held_bytes(grid, patch_zyx))
    starts = [window_starts(n, p, step) for n, p in zip(grid, patch_zyx, strict=True)]
    deep = [_matters(starts[0], patch_zyx[0], one) for one in near or [None] * sentences]
    groups = [list(range(first, min(first + group, sentences))) for first in range(0, sentences, group)]
    total = sum(len({z for one in members for z in deep[one]}) for members in groups) * len(starts[1]) * len(starts[2])
    done = 0

    def told() -> None:
        nonlocal done
        done += 1
        if tick is not None:
            tick(done, total)

    for members in groups:
        sums = _Sums(grid, patch_zyx, [deep[one] for one in members], tokens.device, out, members[0])
        across = [axis_weights(one, p) for one, p in zip(starts[1:], patch_zyx[1:], strict=True)]
        for z in sorted({z for one in members for z in deep[one]}):
            sums.go_to(z)
            asked = [one for one in members if z in deep[one]]
            for y, x in product(starts[1], starts[2]):
                features = encode(torch.from_numpy(cut(image, (z, y, x), patch_zyx))[None].to(tokens.device))
                box = torch.from_numpy(box_of((z, y, x), patch_zyx, grid))[None].to(tokens.device)
                flat = torch.from_numpy(np.outer(across[0][y], across[1][x]).astype(np.float32)).to(tokens.device)
                for first in range(0, len(asked), chunk):
                    some = asked[first : first + chunk]
                    decoded = decode(features, tokens[some][None], mask[some][None], box)
                    said = None if decoded.presence is None else decoded.presence[0].float().sigmoid()
                    sums.add(some, decoded.stages[-1][0], said, z, (y, x), flat)
                told()
        sums.go_to(grid[0])
        presence[members] = sums.presence()
    return Answers(out.read(), None if np.isnan(presence).any() else presence)


class _Sums:
    """Weighted logits of a group of sentences, `depth` slices of the exam from `bottom` on; the rest is given out."""

    def __init__(
        self,
        grid: Grid,
        patch: Grid,
        deep: Sequence[Sequence[int]],
        device: torch.device,
        out: _Array | _File,
        first: int,
    ):
        self.grid, self.patch, self.out, self.first = grid, patch, out, first
        self.bottom = 0
        self.logits = torch.zeros(len(deep), patch[0], grid[1], grid[2], device=device)
        self.along = [
            {z: torch.from_numpy(w.astype(np.float32)).to(device) for z, w in axis_weights(one, patch[0]).items()}
            for one in deep
        ]
        self.seen: list[list[tuple[float, float]]] = [[] for _ in deep]

    def add(
        self, some: Sequence[int], logits: Tensor, presence: Tensor | None, z: int, yx: tuple[int, int], flat: Tensor
    ) -> None:
        """Logits [s, *patch] of the sentences `some` in the window at z, y, x; presence [s] there; flat [y, x]."""
        y, x = yx
        rows, columns = slice(y, y + self.patch[1]), slice(x, x + self.patch[2])
        for n, one in enumerate(some):
            weight = self.along[one - self.first][z][:, None, None] * flat
            said = logits[n].float()
            self.logits[one - self.first, :, rows, columns].addcmul_(said, weight)
            if presence is not None:
                self.seen[one - self.first].append((float((said.sigmoid() * weight).amax()), float(presence[n])))

    def go_to(self, z: int) -> None:
        """Gives out the slices below z, which no later window reaches."""
        ready = min(z - self.bottom, self.patch[0])
        for n, logits in enumerate(self.logits):
            covered = torch.zeros(ready, dtype=torch.bool, device=logits.device)
            for start in self.along[n]:
                covered[max(0, start - self.bottom) : max(0, start + self.patch[0] - self.bottom)] = True
            self.out.write(
                self.first + n, self.bottom, (logits[:ready].sigmoid() * covered[:, None, None]).cpu().numpy()
            )
            logits[: self.patch[0] - ready] = logits[ready:].clone()
            logits[self.patch[0] - ready :] = 0.0
        self.bottom = z

    def presence(self) -> list[float]:
        """Of each sentence, the highest of any window, each weighted by how much it marks there.

        A window's weight is the highest weighted probability in it, as a share of the highest in any window: the plain
        maximum over a hundred windows would find something present somewhere by chance.
        """
        said = []
        for seen in self.seen:
            most = max((marked for marked, _ in seen), default=0.0) or 1.0
            said.append(max((marked / most * one for marked, one in seen), default=float("nan")))
        return said


def _matters(starts: Sequence[int], patch: int, near: tuple[float, float] | None) -> list[int]:
    """The windows along z that hold a slice of `near`; all of them when none does."""
    if near is None:
        return list(starts)
    low, high = near
    return [z for z in starts if z - 0.5 <= high and z + patch - 0.5 >= low] or list(starts)


def room(shape: tuple[int, ...]) -> _Array | _File:
    """For answers [S, Z, Y, X], to be written slices at a time and read whole; 0 where nothing is written."""
    return _Array(shape) if 4 * math.prod(shape) <= IN_MEMORY else _File(shape)


class _Array:
    def __init__(self, shape: tuple[int, ...]):
        self.array = np.zeros(shape, dtype=np.float32)

    def write(self, sentence: int, z: int, slices: NDArray[np.float32]) -> None:
        self.array[sentence, z : z + len(slices)] = slices

    def read(self) -> NDArray[np.float32]:
        return self.array


class _File:
    """The same in a file without a name, in the folder for temporary files; it is gone with its last reader."""

    def __init__(self, shape: tuple[int, ...]):
        self.shape = shape
        self.file: IO[bytes] = tempfile.TemporaryFile(prefix="petground-")  # noqa: SIM115 (the map below outlives us)
        self.file.truncate(4 * math.prod(shape))

    def write(self, sentence: int, z: int, slices: NDArray[np.float32]) -> None:
        self.file.seek(4 * (sentence * self.shape[1] + z) * math.prod(self.shape[2:]))
        self.file.write(np.ascontiguousarray(slices, dtype=np.float32).tobytes())

    def read(self) -> NDArray[np.float32]:
        self.file.flush()
        return np.memmap(self.file, dtype=np.float32, mode="r", shape=self.shape)
