"""What blocks cost: a size's memory is its own, SDPA stands beside every block, failures are told; who is trained."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from petground.models.blocks.contract import Grid
from petground.models.registry import BLOCKS, build

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and forks")


@pytest.fixture
def row(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("block_row")


OWN_MEMORY = """
import block_row as row, json

def cell(slot, key, pattern, edge):
    peak = row._peak(lambda: bytearray(b"1" * (edge << 20)))
    row.reuse_memory()
    bytearray(b"1" * (edge << 20))
    return {"ms": 1.0, "peak_mib": peak}

row.EDGES, row._cell = (48, 49, 64), cell
print(json.dumps(row.one("attention", "softmax", "self")))
"""


def _told(code: str) -> dict[str, Any]:
    """Sizes by a process of its own: another's memory, kept for use again, would hide what they take."""
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=BENCHMARKS,
        env={k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"},
    )  # fmt: skip
    sizes: dict[str, Any] = json.loads(told.stdout)["sizes"]
    return sizes


@linux
def test_what_a_smaller_size_freed_hides_no_memory_of_a_larger() -> None:
    peaks = [one["peak_mib"] for one in _told(OWN_MEMORY).values()]
    assert peaks == [pytest.approx(2 * e, abs=6) for e in (48, 49, 64)]


@linux
def test_a_block_is_measured_beside_sdpa_at_every_size(row: Any) -> None:
    code = "import block_row as row, json; row.EDGES, row.SHARE = (4, 8), 128; print(json.dumps(row.one({})))"
    sizes = _told(code.format("'attention', 'softmax', 'self'"))
    assert list(sizes) == ["64", "512"]
    for cell in sizes.values():
        assert min(cell["ratio"], cell["sdpa_ms"], cell["ms"], cell["pairs"] - 2) > 0 <= cell["peak_mib"]


def test_sdpa_among_voxels_is_of_a_share_and_multiplied(row: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(row, "sdpa", lambda q, k, v: asked.append((q.shape[2], k.shape[2])))
    monkeypatch.setattr(row, "SHARE", 100)
    for reads_text, times in ((False, 5.12), (True, 1.0)):
        plain, given = row._plain(reads_text, 8)
        plain()
        assert given == times
    assert asked == [(100, 512), (512, row.TOKENS)]
    clock = iter([0.0, 3.0, 10.0, 10.5])
    monkeypatch.setattr(row.time, "perf_counter", lambda: next(clock))
    slow = row._beside(lambda: None, lambda: None, 4.0)
    assert slow == {"ms": 3000.0, "sdpa_ms": 2000.0, "ratio": 1.5, "pairs": 1}, "a slow block has no SDPA beside it"


@linux
def test_a_size_that_fails_is_told_and_the_others_are_measured(row: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def cell(slot: str, key: str, pattern: str, edge: int) -> dict[str, Any]:
        if edge == 1:
            raise ValueError("broken")
        if edge == 2:
            os._exit(9)
        if edge == 4:
            bytearray((row.MEMORY_GIB + 1) << 30)
        return {"ms": 2.0, "parameters": 7}

    monkeypatch.setattr(row, "EDGES", (1, 2, 3, 4, 5))
    monkeypatch.setattr(row, "_cell", cell)
    found = row.one("attention", "softmax", "self")
    too_much = {"left_out": "more than 10 GiB"}
    assert list(found["sizes"].values()) == [
        {"left_out": "failed: ValueError"}, {"left_out": "failed: exit code 9"}, {"ms": 2.0, "parameters": 7},
        too_much, too_much,
    ]  # fmt: skip
    assert found["parameters"] == 7
    monkeypatch.setattr(row, "_cell", lambda *_: (row.time.sleep(60), {})[1])
    monkeypatch.setattr(row, "STUCK", 0.2)
    assert row.one("attention", "softmax", "self")["sizes"]["1"] == {"left_out": "more than 0 s"}


def test_a_size_that_would_take_too_long_is_not_begun(row: Any) -> None:
    known = {"10": {"ms": 1e3}}
    assert row._foreseen(known, 100) is None
    assert row._foreseen(known, 120) == {"left_out": "would take about 144 s"}
    slow = {**known, "20": {"ms": 2e3}, "200": {"left_out": "would take about 144 s"}}
    assert row._foreseen(slow, 400) == {"left_out": "a smaller size took too long"}
    assert row._foreseen({"10": {"left_out": "failed: ValueError"}}, 20) is None


def test_a_row_that_fails_stands_in_the_figures_and_is_tried_again(
    row: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks, run = importlib.import_module("blocks"), importlib.import_module("run")
    monkeypatch.setenv("PETGROUND_BENCH_FOLDER", str(tmp_path))
    monkeypatch.setattr(blocks, "rows", lambda: [("attention", "softmax", "self"), ("fusion", "loopback", "")])
    monkeypatch.setattr(blocks.blocks_whole, "reductions", lambda folder: [])
    asked: list[str] = []

    def ends(command: list[str], **_: Any) -> Any:
        asked.append(command[4])
        sizes = {str(edge**3): {"ms": 1.0, "peak_mib": 2.0} for edge in row.EDGES}
        stdout = json.dumps(row.row_of(*command[3:6], sizes))
        return type("Told", (), {"returncode": -9 if command[4] == "loopback" else 0, "stdout": stdout})()

    monkeypatch.setattr(blocks.subprocess, "run", ends)
    figures = blocks.measure()
    assert figures["failed"] == ["fusion loopback"]
    assert figures["blocks"][0]["sizes"]["4096"]["sdpa_peak_mib"] == 2.0
    assert {cell["left_out"] for cell in figures["blocks"][1]["sizes"].values()} == {"failed: exit code -9"}
    blocks.measure()
    assert asked == ["softmax", "loopback", "loopback"]
    monkeypatch.setattr(run, "_load", lambda name: blocks)
    monkeypatch.setattr(run, "HERE", tmp_path / "benchmarks")
    monkeypatch.setattr(run, "_commit", lambda: "abc")
    assert run.main(["blocks"]) == 1, "a block fails, and the benchmark succeeds"


@pytest.mark.parametrize("key", [key for key, block in BLOCKS["attention"].items() if "cross" in block.patterns])
def test_who_stands_in_the_place_of_the_softmax_is_another_and_learns(row: Any, key: str) -> None:
    trained = importlib.import_module("blocks_trained")
    torch.manual_seed(0)
    net, words = trained.blocks_whole.config({}), trained.blocks_whole.DEMO["text"]["max_tokens"]
    channels, grid = max(net.features[stage] for stage in net.fusion_stages), Grid((5, 6, 7), (3.0, 3.0, 3.0))
    q, k, v = (torch.randn(1, 4, n, channels // 4).requires_grad_() for n in (grid.tokens, words, words))
    mask = torch.arange(words)[None] < words - 3
    inside, softmax = (build("attention", name, channels=channels, num_heads=4) for name in (key, "softmax"))
    out, plain = (one(q, k, v, mask=mask, grid=grid, cross=True)[0] for one in (inside, softmax))
    same = torch.allclose(out, plain, atol=1e-5)
    out.square().sum().backward()
    learns = all(one.grad is not None and bool(one.grad.any()) for one in (q, k))
    assert (same or not learns) == (key in trained.NOT_INSIDE), f"same: {same}, its queries and keys learn: {learns}"
