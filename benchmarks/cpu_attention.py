"""Which form of cross-attention is quicker on this CPU, in blocks or PyTorch's: `python benchmarks/cpu_attention.py`

Forward alone, and with the backward, by turns in one process (A B A B; median of the pairs' ratios), after a warm-up;
queries as a linear layer leaves them, a quarter of the words padding. What "auto" takes rests on it
(`kernels/cross_attention/api.py`). Threads: OMP_NUM_THREADS.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from petground.kernels.cross_attention import cross_attention
from petground.kernels.memory import reuse_memory

# batch, heads, voxels, words, channels of a head
SIZES = [
    (1, 8, 32768, 24, 8), (4, 8, 32768, 24, 8), (1, 8, 4096, 24, 16), (1, 4, 32768, 24, 32), (1, 8, 4096, 32, 32),
    (1, 4, 32768, 64, 32), (1, 8, 512, 24, 32), (1, 1, 32768, 24, 64),
]  # fmt: skip
PAIRS = 9


def main() -> None:
    reuse_memory()
    say = sys.stdout.write
    say(f"torch {torch.__version__}, {torch.get_num_threads()} threads; time in blocks / time of PyTorch's\n\n")
    say("| sentences, heads, voxels, words, channels | type | forward | with the backward |\n|---|---|---|---|\n")
    for size in SIZES:
        for dtype in (torch.float32, torch.bfloat16):
            name = str(dtype).removeprefix("torch.")
            forward, both = (_ratio(size, dtype, backward=backward) for backward in (False, True))
            say(f"| {', '.join(map(str, size))} | {name} | {forward:.2f} | {both:.2f} |\n")


def _ratio(size: tuple[int, int, int, int, int], dtype: torch.dtype, *, backward: bool) -> float:
    batch, heads, voxels, words, width = size
    torch.manual_seed(0)
    q, above = (torch.randn(batch, voxels, heads, width, dtype=dtype).transpose(1, 2) for _ in range(2))
    k, v = (torch.randn(batch, heads, words, width, dtype=dtype) for _ in range(2))
    mask = torch.arange(words).expand(batch, -1) < words - words // 4
    leaves = [one.requires_grad_(backward) for one in (q, k, v)]

    def run(backend: str) -> Callable[[], Tensor | tuple[Tensor, ...]]:
        def once() -> Tensor | tuple[Tensor, ...]:
            out = cross_attention(*leaves, mask=mask, backend=backend)
            return torch.autograd.grad(out, leaves, above) if backward else out

        return once

    ours, theirs = run("chunked"), run("sdpa")
    _timed(ours), _timed(theirs)
    return statistics.median(_timed(ours) / _timed(theirs) for _ in range(PAIRS))


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
