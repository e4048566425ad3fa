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
    head = {"command": "python benchmarks/run.py x", "machine": "m", "libraries": {"torch": "2.13"}}
    sizes = {
        "4096": {"ms": 12.34, "ratio": 0.512, "peak_mib": 3.2, "parameters": 1},
        "32768": {"ms": 99.0, "peak_mib": 40.6, "parameters": 1},
        "110592": {"left_out": "would take about 300 s"},
    }
    row = {"slot": "attention", "key": "agent", "pattern": "self", "growth": 1.04, "parameters": 1234, "sizes": sizes}
    gone = {**row, "key": "gone"}
    cost = {"edges": [16, 32, 48], "channels": 128, "heads": 4, "text_tokens": 64, "blocks": [row, gone]}
    (tmp_path / "blocks.json").write_text(json.dumps({**head, "figures": cost}))
    lines = tables.cost_table(links, tmp_path)
    assert "| [agent](#attention-agent) self | 0.51 (12.3) | (99) | left out | 1.0 | 41 | 1,234 |" in lines
    assert not any("gone" in line for line in lines)
    one = {"f1": 0.61, "f1_range": [0.5, 0.7], "f1_by_seed": {"0": 0.5, "1": 0.7}, "paired": 0.02}
    trained = {
        "train_exams": 100,
        "test_exams": 40,
        "not_run_yet": ["agent_2"],
        "blocks": {
            "contextual_gate": {**one, "f1": 0.59, "paired": 0.0, "seconds_per_step": None, "parameters": None},
            "agent": {**one, "seconds_per_step": 1.234, "parameters": 1000},
        },
    }
    (tmp_path / "blocks_trained.json").write_text(json.dumps({**head, "figures": trained}))
    lines = tables.trained_table(links, tmp_path)
    rows = [line for line in lines if line.startswith("| [agent]") or line.startswith("| contextual")]
    assert rows[0] == "| [agent](#attention-agent) | 0.610 | 0.500 to 0.700 | +0.020 | 1.23 | 1,000 | 2 |"  # best first
    assert rows[1] == "| contextual_gate | 0.590 | 0.500 to 0.700 | - | - | - | 2 |"
    assert "Not run yet: agent_2." in lines
