"""Windows and neighbourhoods on the CPU: the fused form, the reference, natten, and the bad input that is refused."""

from __future__ import annotations

import math
import resource
from functools import partial
from itertools import product

import pytest
import torch

from petground.kernels._triton.window_plans import PAIRS
from petground.kernels.window_attention import (
    BackendUnavailableError,
    KernelInputError,
    api,
    chunked,
    neighbourhood_attention,
    window_attention,
)
from petground.kernels.window_attention.pattern import Pattern, query_tile, relative_box, relative_pairs
from petground.kernels.window_attention.reference import pairs
from tests.kernels.comparing import LIMITS, assert_equals_reference, assert_gradients_close, operands
from tests.kernels.window_cases import CASES, FEW, made, run
from tests.models.conformance.memory import largest_tensor

NONE, ONE = (0, 0, 0), (1, 1, 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_chunked_equals_reference(name: str, dtype: torch.dtype) -> None:
    tensors, mask = made(name, dtype, batch=2, heads=2, permuted=True)
    for keep in (mask, None):
        assert_equals_reference(run, name, "chunked", tensors, keep, LIMITS[dtype])


def test_who_sees_whom_by_hand() -> None:
    """On a line of 7: windows of 3 shifted by 1 are [0], [1 2 3], [4 5 6]; a halo of 1 adds one on each side."""
    seen, entry = pairs(Pattern.windows((1, 1, 7), (1, 1, 3), (0, 0, 1), (0, 0, 1), (1, 1, 1)))
    assert [row.nonzero().flatten().tolist() for row in seen] == [
        [0, 1], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [3, 4, 5, 6], [3, 4, 5, 6], [3, 4, 5, 6],
    ]  # fmt: skip
    assert entry[4, 3] == 3 + 1  # query less key is 1, the entry of offset 0 is 3
    seen, entry = pairs(Pattern.neighbours((1, 1, 5), (1, 1, 3), (1, 1, 1), slide=True))
    assert [row.nonzero().flatten().tolist() for row in seen] == [[0, 1, 2], [0, 1, 2], [1, 2, 3], [2, 3, 4], [2, 3, 4]]
    assert entry[0, 2] == 0  # two keys further on: the lowest offset there is


def test_shift_is_swins_ring_with_its_mask() -> None:
    """Rolled, cut, and voxels from the two sides masked from each other: the same, at a grid that is not whole."""
    grid, window, shift = (5, 4, 7), (3, 4, 4), (1, 0, 2)
    padded = [-(-n // w) * w for n, w in zip(grid, window, strict=True)]
    place = torch.stack(torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij"), -1).reshape(-1, 3)
    rolled = torch.stack([(place[:, a] - shift[a]) % padded[a] for a in range(3)], -1)
    window_of = rolled // torch.tensor(window)
    side = place < torch.tensor(shift)
    ring = (window_of[:, None] == window_of).all(-1) & (side[:, None] == side).all(-1)
    seen, _ = pairs(Pattern.windows(grid, window, shift, (0, 0, 0), (1, 1, 1)))
    assert torch.equal(seen, ring)


def test_bias_is_asymmetric_in_every_axis() -> None:
    """One entry that lets nothing but the key before the query through: z, y and x are not mixed up, nor turned."""
    grid = (3, 4, 5)
    q = torch.zeros(1, 1, 60, 4)
    v = torch.arange(60.0).reshape(1, 1, 60, 1)
    for axis, step in enumerate((20, 5, 1)):
        bias = torch.full((1, 5, 7, 9), -1e4)
        entry = [2, 3, 4]
        entry[axis] += 1  # the query's place less the key's is 1
        bias[0, entry[0], entry[1], entry[2]] = 1e4
        out = window_attention(q, q, v, grid=grid, window=grid, bias=bias)
        far = (1, 2, 3)
        query = far[0] * 20 + far[1] * 5 + far[2]
        assert out[0, 0, query, 0] == query - step


def test_gradcheck() -> None:
    tensors, mask = made("shifted", torch.float64)
    inputs = [one.requires_grad_() for one in tensors.values()]
    keys = list(tensors)
    assert torch.autograd.gradcheck(
        lambda *t: run("shifted", **dict(zip(keys, t, strict=True)), mask=mask), inputs, fast_mode=True
    )


@pytest.mark.parametrize(("size", "dilation"), [((3, 3, 3), (1, 1, 1)), ((3, 5, 3), (1, 1, 2))])
def test_equals_natten(size: tuple[int, int, int], dilation: tuple[int, int, int]) -> None:
    natten = pytest.importorskip("natten", reason="natten is missing: extra peers")
    grid = (4, 6, 7)
    q, k, v = (torch.randn(1, 2, math.prod(grid), 32) for _ in range(3))
    theirs = [t.transpose(1, 2).unflatten(1, grid) for t in (q, k, v)]
    truth = natten.na3d(*theirs, kernel_size=size, dilation=dilation, backend="flex-fna").flatten(1, 3).transpose(1, 2)
    found = neighbourhood_attention(q, k, v, grid=grid, size=size, dilation=dilation)
    torch.testing.assert_close(found, truth, atol=1e-5, rtol=1e-5)


def test_memory_does_not_hold_all_pairs() -> None:
    """13824 voxels: all pairs would be 764 MB; forward and backward stay below a tenth of that."""
    grid = (24, 24, 24)
    q, k, v = (torch.randn(1, 1, math.prod(grid), 16, requires_grad=True) for _ in range(3))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    window_attention(q, k, v, grid=grid, window=(4, 4, 4), halo=(1, 1, 1)).sum().backward()
    neighbourhood_attention(q, k, v, grid=grid, size=(3, 3, 3)).sum().backward()
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 76e6


@pytest.mark.parametrize("name", [name for name in FEW if "window" in CASES[name][1]])
def test_large_windows_are_worked_on_in_parts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made small instead of the windows large: parts of three queries or so, with shift, halo and interval."""
    monkeypatch.setattr(chunked, "AT_ONCE", 1)
    monkeypatch.setattr(chunked, "TILE", 3)
    tensors, mask = made(name, torch.float64, batch=2, heads=2)
    assert_equals_reference(run, name, "chunked", tensors, mask, LIMITS[torch.float64])


def test_several_parts_of_one_window_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prime side has only single voxels as parts, two of them at a time here: each takes its own entries of bias."""
    monkeypatch.setattr(chunked, "AT_ONCE", 2 * 7)
    monkeypatch.setattr(chunked, "TILE", 1)
    q, k, v, _ = operands((1, 1, 16, 16, 8, 5), torch.float64)
    given = {"q": q, "k": k, "v": v, "bias": torch.randn(1, 1, 1, 13, dtype=torch.float64)}
    own, truth = (
        partial(window_attention, grid=(1, 1, 16), window=(1, 1, 7), backend=backend)
        for backend in ("chunked", "reference")
    )
    assert_gradients_close(own, truth, given, LIMITS[torch.float64])


def test_one_window_over_the_grid_is_not_held_whole() -> None:
    grid = (12, 14, 13)
    count = math.prod(grid)
    pattern = Pattern.windows(grid, grid, NONE, NONE, ONE)
    q, scale, bias = torch.randn(1, 1, count, 2), torch.ones(1), torch.randn(1, math.prod(pattern.offsets))
    with largest_tensor() as seen:
        out, stat = chunked.forward_chunked(q, q, q, None, bias, scale, pattern)
        chunked.backward_chunked(out, q, q, q, None, bias, scale, out, stat, pattern, bias_grad=True)
    assert seen.numbers <= 1.2 * chunked.AT_ONCE < count**2 / 3, seen.shape


def test_a_bias_that_learns_over_too_many_pairs_is_not_for_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its gradient holds all pairs of a window; without a gradient, or without a bias, any window will do."""
    monkeypatch.setattr(api, "cannot_serve", lambda *_: None)
    q, gpu = torch.empty(1, 1, 1, 16, device="meta"), torch.device("cuda")

    def served(side: int, *, halo: int = 0, slide: bool | None = None, learns: bool | None = True) -> bool:
        pattern = Pattern.windows((48,) * 3, (side,) * 3, NONE, (halo,) * 3, ONE)
        if slide is not None:
            pattern = Pattern.neighbours((48,) * 3, (side,) * 3, ONE, slide=slide)
        bias = None if learns is None else torch.empty(1, math.prod(pattern.offsets), requires_grad=learns)
        reasons = api._reasons(q, q, bias, pattern, gpu)
        assert next(name for name, reason in reasons.items() if reason is None) in ("triton", "chunked")
        return reasons["triton"] is None

    assert served(16)
    assert not served(16, halo=1)
    assert not served(24)
    assert served(24, learns=False)
    assert served(24, learns=None)
    with torch.no_grad():
        assert served(24)
    assert served(31, slide=True)
    assert not served(33, slide=True)
    assert served(47, slide=False)
    big = torch.zeros(1, 1, 24**3, 16)
    options = {"grid": (24,) * 3, "window": (24,) * 3, "bias": torch.zeros(1, 47**3, requires_grad=True)}
    with pytest.raises(BackendUnavailableError, match=r"gradient of a bias.*serving here: auto, chunked"):
        window_attention(big, big, big, **options, backend="triton")


def test_what_is_counted_before_is_what_triton_holds() -> None:
    for size in ((16, 16, 16), (31, 31, 31), (9, 31, 47)):
        for pattern in (
            Pattern.windows((48,) * 3, size, NONE, (1, 0, 2), ONE),
            Pattern.neighbours((48,) * 3, size, ONE, slide=True),
            Pattern.neighbours((48,) * 3, size, ONE, slide=False),
        ):
            for rows in (16, 32, 64):  # what plans take together
                tile = query_tile(pattern, rows)
                held = math.prod(tile) * math.prod(relative_box(pattern, tile)[1])
                assert held <= 1.1 * relative_pairs(pattern)
    assert relative_pairs(Pattern.windows((48,) * 3, (16,) * 3, NONE, NONE, ONE)) == PAIRS


def test_compiles_in_one_graph_and_passes_opcheck() -> None:
    for name in ("slide", "halo"):
        tensors, mask = made(name, torch.float32)
        tensors["bias"].requires_grad_()
        compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(name, **tensors, mask=mask), run(name, **tensors, mask=mask))
    q, k, v, bias = (tensors[name].requires_grad_() for name in ("q", "k", "v", "bias"))
    numbers = Pattern.windows((2, 3, 5), (2, 2, 3), (0, 0, 0), (1, 0, 2), (1, 1, 1)).numbers()
    scale = torch.full((1,), 0.3, requires_grad=True)
    op = torch.ops.petground.window_attention.default
    torch.library.opcheck(op, (q, k, v, mask, bias.detach().flatten(1).requires_grad_(), scale, numbers, "chunked"))


def test_every_voxel_is_in_one_tile() -> None:
    from petground.kernels.window_attention.chunked import _tiles

    for (grid, arguments), at_once in product(CASES.values(), (1, 1 << 20)):
        if "size" in arguments:
            far = arguments.get("dilation", (1, 1, 1))
            pattern = Pattern.neighbours(grid, arguments["size"], far, slide="edges" not in arguments)
        else:
            given = {"shift": (0, 0, 0), "halo": (0, 0, 0), "interval": (1, 1, 1)} | arguments
            pattern = Pattern.windows(grid, **given)
        found = torch.cat([t.queries[t.real] for t in _tiles(pattern, at_once, torch.device("cpu"), biased=False)])
        assert torch.equal(found.sort()[0], torch.arange(math.prod(grid)))


def test_wrong_inputs_are_named() -> None:
    q = torch.randn(1, 2, 24, 8)
    good = {"grid": (2, 3, 4), "window": (2, 2, 2)}
    for change, word in [
        ({"grid": (2, 3, 5)}, "30 voxels"),
        ({"window": (2, 2)}, "window is"),
        ({"window": (2, 0, 2)}, "window is"),
        ({"halo": (-1, 0, 0)}, "halo is"),
        ({"shift": (2, 0, 0)}, "shift"),
        ({"interval": (1, 1, 1.0)}, "interval is"),
        ({"bias": torch.zeros(2, 3, 3, 4)}, "H=2, Z=3, Y=3, X=3"),
        ({"bias": torch.zeros(2, 27, dtype=torch.long)}, "int64"),
        ({"mask": torch.ones(1, 23, dtype=torch.bool)}, "mask is"),
        ({"temperature": 0.0}, "temperature"),
    ]:
        with pytest.raises(KernelInputError, match=word):
            window_attention(q, q, q, **(good | change))
    with pytest.raises(KernelInputError, match="edges='cut'"):
        neighbourhood_attention(q, q, q, grid=(2, 3, 4), size=(3, 3, 3))
    with pytest.raises(KernelInputError, match="slide or cut"):
        neighbourhood_attention(q, q, q, grid=(2, 3, 4), size=(1, 1, 1), edges="wrap")
    with pytest.raises(BackendUnavailableError, match="triton"):
        window_attention(q, q, q, **good, backend="triton")
    with pytest.raises(BackendUnavailableError, match="no backend 'flash'"):
        window_attention(q, q, q, **good, backend="flash")
