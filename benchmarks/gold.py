"""Reading of reports against the gold set: F1 of (SUV, slice) pairs, reasons of the others, laterality.

Run by `python benchmarks/run.py gold`; `python benchmarks/gold.py` lists every disagreement. The annotated texts are
not in the repository. They are looked for in `shared/gold` beside the checkout, or in `gold` under the folder that
PETGROUND_SHARED names: sentences_dev.jsonl and reports_dev.jsonl, a text a line:

    {"id": "a1", "text": "Left hilar node, SUVmax 5.2 on slice 58, previously 7.4.",
     "pairs": [{"suv": 5.2, "slice": 58, "laterality": "left"}], "rejected": [{"suv": 7.4, "reason": "prior"}]}
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from petground.labeling.extract import extract_findings
from petground.labeling.finding import Finding


def score(rows: list[dict[str, Any]]) -> tuple[dict[str, float], list[str]]:
    """Figures over the rows of a gold file, and a line per disagreement."""
    count: Counter[str] = Counter()
    lines = []
    for row in rows:
        findings = extract_findings(row["text"])
        gold = Counter((p["suv"], p["slice"]) for p in row["pairs"])
        found = Counter((f.suv, f.slice) for f in findings if f.status == "positive")
        hit = sum((gold & found).values())
        count["tp"] += hit
        count["fp"] += sum(found.values()) - hit
        count["fn"] += sum(gold.values()) - hit
        lines += [f"{row['id']} missed {p}" for p in gold - found] + [f"{row['id']} extra {p}" for p in found - gold]
        for pair in row["pairs"]:
            match = [f for f in findings if f.status == "positive" and (f.suv, f.slice) == (pair["suv"], pair["slice"])]
            if match:
                right = any(f.laterality == pair["laterality"] for f in match)
                count["side_right"] += right
                count["sides"] += 1
                if not right:
                    lines.append(
                        f"{row['id']} side of {pair['suv']} is {match[0].laterality}, not {pair['laterality']}"
                    )
        want = [(r["suv"], r["reason"]) for r in row["rejected"]]
        want += [(r["suv"], "repeat") for r in row.get("impression_repeats", ())]
        lines += _reasons(row["id"], want, findings, count)
    total = 2 * count["tp"] + count["fp"] + count["fn"]
    return {
        "f1": 2 * count["tp"] / total if total else 1.0,
        "laterality": count["side_right"] / max(count["sides"], 1),
        "reasons": count["reason_right"] / max(count["reasons"], 1),
        "values_unexpected": float(count["values_unexpected"]),
    }, lines


def _reasons(key: str, want: list[tuple[float, str]], findings: list[Finding], count: Counter[str]) -> list[str]:
    lines = []
    left = [(f.suv, f.reason) for f in findings if f.status == "excluded"]
    count["reasons"] += len(want)
    rest = []
    for item in want:
        if item in left:
            left.remove(item)
            count["reason_right"] += 1
        else:
            rest.append(item)
    lines += [f"{key} {suv} should be {reason}, is {[r for s, r in left if s == suv] or '-'}" for suv, reason in rest]
    unexpected = [item for item in left if item[0] not in [s for s, _ in rest]]
    count["values_unexpected"] += len(unexpected)
    return lines + [f"{key} unexpected {item}" for item in unexpected]


SHARED = Path(os.environ.get("PETGROUND_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def measure() -> dict[str, dict[str, float]] | None:
    """Figures of both files; None when they are not here."""
    read = _rows()
    return {name: score(rows)[0] for name, rows in read.items()} if read else None


def _rows() -> dict[str, list[dict[str, Any]]]:
    files = [SHARED / "gold" / f"{name}.jsonl" for name in ("sentences_dev", "reports_dev")]
    return {
        file.stem: [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        for file in files
        if file.is_file()
    }


if __name__ == "__main__":
    for name, rows in _rows().items():
        figures, lines = score(rows)
        sys.stdout.write("\n   ".join([f"{name}: {figures}", *lines]) + "\n")
