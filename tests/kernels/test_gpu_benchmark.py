"""The logic of benchmarks/gpu.py on the CPU, with small sizes and other backends in the place of Triton's."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
QUICK = {"seconds": 0.0, "least": 2, "most": 2}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return pytest.importorskip("gpu", reason="Triton is not installed", exc_type=ImportError)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_without_a_gpu_it_says_what_is_needed(gpu: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 2
    assert "compute capability 8.0" in capsys.readouterr().err
    assert gpu.main(["--help"]) == 0
    assert "check:cross_attention" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "by", "library"),
    [("cross_gate", "chunked", "SDPA math"), ("linear", "chunked", "PyTorch, two products"),
     ("topk", "reference", "torch.topk and sort")],
)  # fmt: skip
def test_a_row_is_compared_and_timed(gpu: Any, row: str, by: str, library: str) -> None:
    found = gpu.timed(row, CPU, small=True, by=by, **QUICK)
    assert "left_out" not in found["contenders"]["petground"]
    assert "left_out" not in found["contenders"][library]
    assert list(found["passes"]) == (["forward"] if row == "topk" else ["forward", "backward"])
    for one in found["passes"].values():
        assert set(one["ms"]) == {n for n, c in found["contenders"].items() if "left_out" not in c}
        assert one["times_as_quick_as"][library] > 0
        assert one["copy_share"] == pytest.approx(
            one["bytes"] / (1e-3 * one["ms"]["petground"]) / (1e9 * found["copy_gb_s"]), abs=2e-3, rel=0.05
        )
    json.dumps(found)


def test_bytes_count_what_must_be_moved(gpu: Any) -> None:
    setup = gpu.ROWS["cross"].make(CPU, True, "chunked")
    # 2 entries, 8 heads of 32: 64 queries, 16 keys and as many values in 16 bits, the mask, 64 answers
    operands = 2 * 8 * 32 * (64 + 16 + 16) * 2
    answer = 2 * 8 * 32 * 64 * 2
    assert gpu._moved(setup.tensors, answer, setup) == (operands + 32 + answer, 2 * operands + 32 + answer)


def test_who_is_wrong_or_does_not_serve_is_not_timed(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    row = gpu.ROWS["linear"]

    def make(*arguments: Any) -> Any:
        setup = row.make(*arguments)
        library = next(iter(setup.contenders.values()))

        def refuses(q: Any, k: Any, v: Any) -> Any:
            raise RuntimeError("does not take this\nand a trace")

        contenders = {"right": library, "refuses": replace(library, run=refuses)}
        return replace(setup, petground=lambda q, k, v: setup.petground(q, k, v) * 1.1, contenders=contenders)

    monkeypatch.setitem(gpu.ROWS, "linear", replace(row, make=make))
    found = gpu.timed("linear", CPU, small=True, by="chunked", **QUICK)
    assert found["contenders"]["refuses"] == {"left_out": "does not take this"}
    assert found["contenders"]["petground"]["left_out"].startswith("wrong: {'out': 'error 1.0e-01")
    assert set(found["passes"]["forward"]["ms"]) == {"right"}
    assert gpu._wrong(found)
    assert "| right |" in gpu.written({"rows": {"linear": found}, "limits": {}} | gpu._machine() | _RUN, gpu.NAMES)


def test_ratios_are_of_times_of_one_round_and_eager_is_no_library(gpu: Any) -> None:
    times = {"petground": [1.0, 2.0, 4.0], "fused": [2.0, 3.0, 4.0], "eager": [1.0, 1.0, 1.0]}
    found = gpu._summary(times, {"petground": {}, "fused": {}, "eager": {"eager": True}}, 10**6, 1.0)
    assert found["times_as_quick_as"] == {"fused": 1.5, "eager": 0.5}
    assert found["best_library"] == "fused"
    assert found["copy_share"] == 0.5  # 1 MB in 2 ms, a copy moves 1 GB/s


def test_rows_that_are_there_are_not_run_again(gpu: Any, tmp_path: Path) -> None:
    ran: list[str] = []

    def run(name: str) -> dict[str, Any] | None:
        ran.append(name)
        return None if name == "topk" else {"what": name}

    later = time.monotonic() + 60
    assert gpu.collect(("cross", "topk"), tmp_path, later, run) == ({"cross": {"what": "cross"}}, False)
    assert gpu.collect(("cross",), tmp_path, later, run) == ({"cross": {"what": "cross"}}, True)
    assert ran == ["cross", "topk"]
    assert gpu.collect(("merge",), tmp_path, time.monotonic(), run)[1] is False  # out of time
    assert ran == ["cross", "topk"]


_RUN = {"command": "python benchmarks/gpu.py", "commit": "abc"}


def test_the_page_says_which_goals_are_reached(gpu: Any) -> None:
    row = {
        "what": "cross", "copy_gb_s": 4000.0, "share_goals": [0.7, 0.5], "ratio_goal": 1.3,
        "contenders": {"petground": {"error": 0.001}, "fused": {"error": 0.002}, "other": {"left_out": "a | b"}},
        "passes": {
            "forward": {"ms": {"petground": 0.1, "fused": 0.12}, "copy_share": 0.71, "best_library": "fused",
                        "times_as_quick_as": {"fused": 1.2}},
            "backward": {"ms": {"petground": 0.3, "fused": 0.6}, "copy_share": 0.4, "best_library": "fused",
                         "times_as_quick_as": {"fused": 2.0}},
        },
    }  # fmt: skip
    check = {"calls": 3, "configurations": 9, "configurations_run": 8, "largest_error": {"float16": 1e-3},
             "faults": {"a case": {"dq": "error"}}}  # fmt: skip
    machine = {"gpu": "A GPU", "versions": {"torch": "2.13.0"}}
    rows = {"check:topk": check, "cross": row}
    page = gpu.written({"rows": rows, "limits": {"float16": 2e-3}} | machine | _RUN, ("check:topk", "cross", "merge"))
    lines = page.splitlines()
    assert "| cross | forward | 0.1 | 4000 | 71 % | 70 %: reached | fused | 0.12 | 1.2 | 1.3: not reached |" in lines
    assert "|  | backward | 0.3 | 4000 | 40 % | 50 %: not reached | fused | 0.6 | 2.0 | 1.3: reached |" in lines
    assert "| topk | 3 | 8 of 9 | float16 1.0e-03 | a case: {'dq': 'error'} |" in lines
    assert "| other | a / b | | | | |" in lines
    assert "A GPU; torch 2.13.0; commit abc; `python benchmarks/gpu.py`." in lines
    assert "Not run yet: merge." in lines


def test_the_page_in_the_documentation_is_of_the_figures(gpu: Any) -> None:
    path = ROOT / "docs" / "results" / "gpu.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    assert (ROOT / "docs" / "performance.md").read_text(encoding="utf-8") == gpu.written(result, gpu.NAMES)
