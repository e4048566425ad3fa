"""Whom the kernels are timed against over grids: they give the right answer, and by the library's quick way."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("gpu_rows").ROWS


def _natten(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, kernel_size: Any, stride: Any) -> torch.Tensor:
    """Natten's rule for a stride as large as the size, plainly: [B, Z, Y, X, H, D], all pairs masked."""
    assert kernel_size == stride == (4, 4, 4)
    side = q.shape[1]
    place = torch.stack(torch.meshgrid(*[torch.arange(side) // 4] * 3, indexing="ij")).flatten(1)
    same = (place[:, :, None] == place[:, None, :]).all(0)
    flat = (t.flatten(1, 3).transpose(1, 2) for t in (q, k, v))
    found = torch.nn.functional.scaled_dot_product_attention(*flat, attn_mask=same)
    return found.transpose(1, 2).unflatten(1, (side,) * 3)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("name", ["windows", "windows_unbiased", "neighbourhood", "routed"])
def test_contenders_over_grids_are_right(rows: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there = ModuleType("natten")
    there.na3d = _natten  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "natten", there if name == "windows_unbiased" else None)  # None: not installed
    setup = rows[name].make(CPU, True, "chunked")
    tensors = {key: one.float() for key, one in setup.tensors.items()}
    truth, ran = setup.plain(**tensors), []
    for contender, one in setup.contenders.items():
        own = {k: t[:, :, one.order] if one.order is not None and t.ndim == 4 else t for k, t in tensors.items()}
        try:
            with torch.no_grad():
                found = one.run(**own)
        except RuntimeError:
            assert "SDPA" in contender, "a backend that the CPU has not"
            continue
        torch.testing.assert_close(found, truth if one.order is None else truth[:, :, one.order], msg=contender)
        ran.append(contender)
    kinds = " ".join(ran)
    assert "SDPA math" in kinds or name == "neighbourhood"
    assert "FlexAttention" in kinds or name == "routed"
    assert ("natten" in ran) == (name == "windows_unbiased")
    if name == "windows":
        assert "no bias" in setup.missing["natten"]


@pytest.mark.parametrize("name", ["windows", "windows_unbiased", "routed"])
def test_windows_are_cut_by_a_view_and_a_copy(rows: Any, name: str) -> None:
    """Of picking voxels by number the backward adds up one by one, which no library's user would wait for."""
    setup = rows[name].make(CPU, True, "chunked")
    run = next(one.run for contender, one in setup.contenders.items() if "math" in contender)
    tensors = {key: one.float().requires_grad_() for key, one in setup.tensors.items()}
    seen, todo = set(), [run(**tensors).grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [one for one, _ in node.next_functions]
    picks = [node for node in seen if node.name().startswith("IndexBackward")]
    assert len(picks) == (1 if name == "windows" else 0), "only the table of biases is read by number"
