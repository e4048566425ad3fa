"""What the network's own forms of layers cost on this CPU against PyTorch's: `python benchmarks/cpu_layers.py`

Forward and backward as in training (mixed precision where the type is bfloat16), features channels last, sizes of
ours.yaml's finer stages on a 64^3 patch (its gate as where 6 mm voxels read the text, too). By turns in one process
(A B A B; median of the pairs' ratios, and the seconds' medians), after a warm-up. Threads: OMP_NUM_THREADS.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from petground.kernels.memory import reuse_memory
from petground.models.blocks.contextual_gate import ContextualGate
from petground.models.blocks.gate_layers import residual_gate
from petground.models.layers import ConvTranspose3d, InstanceNorm3d, PooledConv3d, upsampled

PAIRS = 15
LAST = torch.channels_last_3d


def main() -> None:
    reuse_memory()
    say = sys.stdout.write
    say(f"torch {torch.__version__}, {torch.get_num_threads()} threads; ours / PyTorch's, and both in ms\n\n")
    say("| layer | float32 | bfloat16 |\n|---|---|---|\n")
    for name, (ours, theirs, shape) in cases().items():
        cells = [_ratio(ours, theirs, shape, narrow=narrow) for narrow in (False, True)]
        say(f"| {name} | {cells[0]} | {cells[1]} |\n")


def cases() -> dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], tuple[int, ...]]]:
    """{what: (ours, PyTorch's, the features' shape)}; both of a pair have the same weights."""
    torch.manual_seed(0)
    projection, up = nn.Conv3d(32, 64, 1, bias=False), ConvTranspose3d(64, 32, 2, 2)
    wider, widest = nn.Conv3d(64, 128, 1, bias=False), nn.Conv3d(128, 256, 1, bias=False)
    plain_up = nn.ConvTranspose3d(64, 32, 2, 2)
    plain_up.load_state_dict(up.state_dict())
    norms = InstanceNorm3d(32, affine=True), nn.InstanceNorm3d(32, affine=True)
    answer = torch.randn(1, 64, 32, 32, 32).to(memory_format=LAST)
    ours, plain = (
        ContextualGate(64, 384, 8, norm=True, coordinates="fourier", form="residual_gate", backend=backend)
        for backend in ("chunked", "sdpa")
    )
    plain.load_state_dict(ours.state_dict())
    tokens, mask = torch.randn(1, 24, 384), torch.ones(1, 24, dtype=torch.bool)
    grid = (64, 64, 64)
    fine, coarse = (1, 32, 64, 64, 64), (1, 64, 32, 32, 32)
    return {
        "instance norm, 32 channels, 64^3": (*norms, fine),
        "pooling and projection, 32 to 64 channels, 64^3": (
            PooledConv3d(projection, (2, 2, 2)), nn.Sequential(nn.AvgPool3d(2), projection), fine,
        ),
        "pooling and projection, 64 to 128 channels, 32^3": (
            PooledConv3d(wider, (2, 2, 2)), nn.Sequential(nn.AvgPool3d(2), wider), coarse,
        ),
        "pooling and projection, 128 to 256 channels, 16^3": (
            PooledConv3d(widest, (2, 2, 2)), nn.Sequential(nn.AvgPool3d(2), widest), (1, 128, 16, 16, 16),
        ),
        "the same, were it joined there": (
            PooledConv3d(widest, (2, 2, 2)).joined, nn.Sequential(nn.AvgPool3d(2), widest), (1, 128, 16, 16, 16),
        ),
        "transposed convolution, 64 to 32 channels, 32^3": (up, plain_up, coarse),
        "logits of one sentence, 32^3 to 64^3": (
            lambda x: upsampled(x, grid), lambda x: interpolate(x, grid, mode="trilinear"), (1, 1, 32, 32, 32),
        ),
        "logits of ten sentences, 32^3 to 64^3": (
            lambda x: upsampled(x, grid), lambda x: interpolate(x, grid, mode="trilinear"), (10, 1, 32, 32, 32),
        ),
        "residual gate, 64 channels, 32^3": (
            lambda x: residual_gate(x, answer.to(x.dtype)),
            lambda x: x * (1.0 + torch.tanh(answer.to(x.dtype))) + answer.to(x.dtype),
            coarse,
        ),
        "contextual gate, 8 heads, 24 words, 32^3 (against sdpa)": (
            lambda x: ours(x, tokens, mask)[0], lambda x: plain(x, tokens, mask)[0], coarse,
        ),
    }  # fmt: skip


def _ratio(
    ours: Callable[[Tensor], Tensor], theirs: Callable[[Tensor], Tensor], shape: tuple[int, ...], *, narrow: bool
) -> str:
    dtype = torch.bfloat16 if narrow else torch.float32
    x = torch.randn(shape).to(dtype).to(memory_format=LAST).requires_grad_()

    def run(layer: Callable[[Tensor], Tensor]) -> float:
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            out = layer(x)
        out.backward(above)
        return time.perf_counter() - start

    with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
        above = torch.randn_like(ours(x))
    run(ours), run(theirs)
    times = [(run(ours), run(theirs)) for _ in range(PAIRS)]
    one, other = (1e3 * statistics.median(each) for each in zip(*times, strict=True))
    return f"{statistics.median(a / b for a, b in times):.2f} ({one:.1f}, {other:.1f})"


if __name__ == "__main__":
    main()
