"""The annotated report language, when it is there (it is no part of the repository): F1, reasons, sides."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gold_benchmark", ROOT / "benchmarks" / "gold.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("name", "f1"), [("sentences_dev", 0.98), ("reports_dev", 0.95)])
def test_gold(gold_dir: Path, name: str, f1: float) -> None:
    rows = [json.loads(line) for line in (gold_dir / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    figures, lines = _benchmark().score(rows)
    assert figures["f1"] >= f1, lines
    assert figures["reasons"] >= 0.95, lines
    assert figures["laterality"] >= 0.95, lines
