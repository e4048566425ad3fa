"""Rows worked out in turn: the same numbers and gradients, and no more memory than one turn."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from petground.models.blocks.chunks import by_rows

HELD = """
import torch
from petground.kernels.memory import reuse_memory
from petground.models.blocks.chunks import by_rows

def held():
    return int(open("/proc/self/statm").read().split()[1]) * 4 / 1024

torch.set_num_threads(1)
reuse_memory()
x, y, nothing = torch.randn(1, 8192, 4), torch.randn(1, 4, 8192), torch.zeros(1, 1, 8192)
before = held()
with torch.no_grad():
    by_rows(lambda first, last: torch.baddbmm(nothing, x[:, first:last], y).max(-1)[0], 8192, 256, dim=1)
print(held() - before)
"""


@pytest.mark.parametrize(("count", "step", "dim"), [(7, 3, 2), (6, 3, 1), (5, 5, 0), (5, 9, 2), (4, 1, 0)])
def test_the_same_as_all_at_once_with_gradients(count: int, step: int, dim: int) -> None:
    x = torch.randn(*(count if axis == dim else 2 for axis in range(4)), dtype=torch.float64, requires_grad=True)

    def some(first: int, last: int) -> Tensor:
        return x.narrow(dim, first, last - first).square().cumsum(-1)

    whole = x.square().cumsum(-1)
    parts = by_rows(some, count, step, dim)
    assert torch.equal(parts, whole)
    weights = torch.randn_like(whole)
    assert torch.equal(*(torch.autograd.grad((one * weights).sum(), x)[0] for one in (parts, whole)))
    with torch.no_grad():
        assert torch.equal(by_rows(some, count, step, dim), whole)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and it is glibc that kept them")
def test_memory_that_stays_is_that_of_one_turn() -> None:
    """32 turns of 8 MiB: 53 MiB are held in the end; 261 were when each turn's answer was kept by itself."""
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 150
