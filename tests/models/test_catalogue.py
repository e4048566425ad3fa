"""docs/blocks.md is what the registry and the figures say, and names tests that exist."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from petground.models.registry import find, list_blocks

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("block_catalogue")


def test_the_page_is_as_it_would_be_written(catalogue: ModuleType) -> None:
    page = catalogue.PAGE.read_text(encoding="utf-8")
    assert catalogue.written(page) == page, "docs/blocks.md is stale; run: python benchmarks/block_catalogue.py"


def test_every_block_has_its_entry_and_every_link_its_place(catalogue: ModuleType) -> None:
    page = catalogue.PAGE.read_text(encoding="utf-8")
    places = re.findall(r'<a id="([^"]+)"></a>', page)
    assert len(places) == len(set(places)) == len(list_blocks())
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= set(places)


def test_the_tests_that_it_names_exist_and_know_the_block(catalogue: ModuleType) -> None:
    for row in list_blocks():
        files = catalogue.tests_of(row)
        assert files, (
            f"{row['slot']} {row['key']}: name the test of its property in benchmarks/block_catalogue.py, TESTS"
        )
        for file in files if "conformance" not in files[0] else ():
            text = (ROOT / "tests" / "models" / file).read_text(encoding="utf-8")
            names = (row["key"], find(row["slot"], row["key"]).cls.__name__, "relative_bias")
            assert any(re.search(rf"\b{name}\b", text) for name in names), f"{file} does not know {row['key']}"


def test_a_page_without_a_place_is_refused(catalogue: ModuleType) -> None:
    with pytest.raises(ValueError, match="markers of overview"):
        catalogue.written("# Blocks\n")


def test_figures_become_tables(catalogue: ModuleType, tmp_path: Path) -> None:
    tables = importlib.import_module("block_tables")
    links = {("attention", "agent"): "[agent](#attention-agent)", ("fusion", "none"): "[none](#fusion-none)"}
    assert tables.cost_table(links, tmp_path) == tables.trained_table(links, tmp_path) == tables.NOT_YET
    head = {
        "command": "python benchmarks/run.py x",
        "commit": "1a2b",
        "machine": "m",
        "libraries": {"torch": "2.13"},
    }
    sizes = {
        "4096": {"ms": 12.34, "ratio": 0.512, "peak_mib": 3.2, "parameters": 1},
        "32768": {"ms": 99.0, "ratio": 0.9, "peak_mib": 40.6, "sdpa_peak_mib": 8.4, "floor_ms": 2.345, "parameters": 1},
        "110592": {"left_out": "would take about 300 s"},
    }
    row = {"slot": "attention", "key": "agent", "pattern": "self", "growth": 1.04, "parameters": 1234, "sizes": sizes}
    gone = {**row, "key": "gone"}
    fails = {size: {"left_out": "failed: RuntimeError"} for size in sizes}
    broken = {"slot": "fusion", "key": "none", "pattern": "", "growth": None, "parameters": None, "sizes": fails}
    cost = {"edges": [16, 32, 48], "channels": 128, "heads": 4, "text_tokens": 64, "sdpa_queries": 2048, "threads": 2}
    cost["blocks"] = [row, gone, broken]
    (tmp_path / "blocks.json").write_text(json.dumps({**head, "figures": cost}))
    lines = tables.cost_table(links, tmp_path)
    name, slow = "[agent](#attention-agent) self", "left out (would take about 300 s)"
    assert f"| {name} | 0.51 (12.3) | 0.9 (99) | {slow} | 1.0 | 2.35 | 41 (8) | 1,234 |" in lines
    assert "| [none](#fusion-none) |" + " left out (failed: RuntimeError) |" * 3 + " - | - | - | - |" in lines
    assert not any("gone" in line for line in lines)
    step = {"ratio": 0.8, "range": [0.7, 0.9], "pairs": 5}
    slower = {"step": {**step, "range": [0.9, 1.1]}, "inference": step}
    whole = [{"stage": 2, "key": "lookup", "step": step, "inference": step},
             {"stage": 1, "key": "lookup", **slower},
             {"stage": 1, "key": "mue_exit", "left_out": "more than 600 s"}]  # fmt: skip
    (tmp_path / "blocks.json").write_text(json.dumps({**head, "figures": {**cost, "whole": whole}}))
    links |= {("token_reduction", key): f"[{key}](#x)" for key in ("lookup", "mue_exit")}
    lines = tables.cost_table(links, tmp_path)
    quick = "0.80 (0.70 to 0.90)"
    assert f"| [lookup](#x) | {quick} | {quick} | 0.80 (0.90 to 1.10) | {quick} |" in lines
    assert any(line.startswith("| [mue_exit](#x) | - | - | left out: more than 600 s") for line in lines)
    assert (
        "At stage 2 a training step is quicker in every pair with: [lookup](#x). "
        "At stage 1 a training step is quicker in every pair with: none."
    ) in lines


def test_what_was_trained_is_told_as_what_it_was(catalogue: ModuleType, tmp_path: Path) -> None:
    tables = importlib.import_module("block_tables")
    links = {("attention", "agent"): "[agent](#attention-agent)", ("token_reduction", "lookup"): "[lookup](#x)"}

    def est(value: float) -> dict[str, float | int]:
        return {"value": value, "low": value - 0.01, "high": value + 0.01, "n": 9}

    one = {"f1_by_seed": {"0": 0.5, "1": 0.7}, "mean_dice": est(0.4), "parameters": 1000}
    step = {"ratio": 0.8, "range": [0.7, 0.9], "pairs": 5}
    cost = {"cost": {"step": step, "inference": step}}
    figures = {
        "train_exams": 80, "test_exams": 20, "steps": 216, "seeds": [0, 1, 2], "stage": 2, "chosen_by": "costs",
        "not_run_yet": ["attention_2"],
        "rows": {
            "contextual_gate": {
                **one, "kind": "gate", "key": "contextual_gate", "f1": est(0.59), "f1_against": None,
                "mean_dice_against": None,
            },
            "gate_agent": {
                **one, **cost, "kind": "inside", "key": "agent", "f1": est(0.61), "f1_against": est(0.02),
                "mean_dice_against": est(-0.1),
            },
            "attention_lookup": {
                **one, **cost, "kind": "reduction", "key": "lookup", "f1": est(0.61), "f1_against": est(0.0),
                "mean_dice_against": est(0.0),
            },
        },
    }  # fmt: skip
    head = {
        "command": "python benchmarks/run.py x",
        "commit": "1a2b",
        "machine": "m",
        "libraries": {"torch": "2.13"},
    }
    (tmp_path / "blocks_trained.json").write_text(json.dumps({**head, "figures": figures}))
    lines = tables.trained_table(links, tmp_path)
    rows = [line for line in lines if line.startswith(("| [", "| contextual"))]
    assert rows[0] == (  # best first
        "| [agent](#attention-agent) in place of the gate's softmax | 0.61 (0.60 to 0.62) | 0.50 to 0.70 (2) "
        "| 0.40 (0.39 to 0.41) | +0.02 (+0.01 to +0.03) | -0.10 (-0.11 to -0.09) | 0.80 (0.70 to 0.90) "
        "| 0.80 (0.70 to 0.90) | 1,000 |"
    )
    assert rows[1].startswith("| contextual_gate | 0.59 (0.58 to 0.60)")
    assert rows[2].endswith("| +0.00 (-0.01 to +0.01) | 0.80 (0.70 to 0.90) | 0.80 (0.70 to 0.90) "
                            "| yes: quicker at equal Dice |")  # fmt: skip
    assert "Not run yet: attention_2." in lines


def test_a_reduction_pays_only_when_it_is_quicker_at_equal_dice(catalogue: ModuleType) -> None:
    tables = importlib.import_module("block_tables")

    def said(fastest: float, slowest: float, low: float, high: float, pairs: int = 5, dice: float = 0.4) -> str:
        cost = {"step": {"ratio": 1.0, "range": [fastest, slowest], "pairs": pairs}}
        less = {"value": 0.0, "low": low, "high": high}
        word: str = tables.verdict({"cost": cost, "mean_dice": {"value": dice}, "mean_dice_against": less})
        return word

    assert said(0.7, 0.9, -0.01, 0.03) == "yes: quicker at equal Dice"
    assert said(0.7, 0.9, -0.05, 0.03) == "quicker; whether Dice is equal is not told"
    assert said(0.7, 0.9, -0.05, -0.03) == "quicker, at lower Dice"
    assert said(0.7, 0.9, -0.01, 0.03, dice=0.01) == "quicker; too little was learnt to compare Dice"
    assert said(0.9, 1.1, 0.01, 0.03) == "no: no time gained"
    assert said(1.1, 1.3, 0.01, 0.03) == "no: slower"
    assert said(0.7, 0.9, 0.01, 0.03, pairs=1) == "time not measured"
