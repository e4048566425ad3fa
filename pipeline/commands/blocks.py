"""`petground blocks`: what a config can name."""

from __future__ import annotations

import importlib
import json as to_json
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from petground.labeling.errors import ConfigError

__all__ = ["blocks"]

SLOTS = {
    "attention": "among the voxels of decoder stages",
    "token_reduction": "fewer voxels in that attention",
    "mixer": "voxels with their neighbours",
    "fusion": "voxels with the sentence's tokens",
}
PATTERNS = ("self", "cross", "causal")
BACKENDS = ("triton", "sdpa", "chunked")  # and the reference, which every operator has
WIDEST = 100


def blocks(key: str | None = None, slot: str | None = None, json: bool = False) -> int:
    """List every registered block: its name in YAML, what it serves, its backends, the paper, what it costs.

    One line a block, cut off at the terminal's edge; in a pipe the whole line. The cost counts N queries or voxels, M
    keys, P words, d channels. With a KEY: equation, options and their defaults, the property that its tests assert.

    Args:
        key: one block in full, e.g. agent.
        slot: only this slot, e.g. fusion.
        json: print JSON, with everything.
    """
    # By name: the command line is where the rooms meet, `pipeline` itself imports no networks.
    registry = importlib.import_module("petground.models.registry")
    try:
        rows: list[dict[str, Any]] = registry.list_blocks(slot)
        if key is not None:
            rows = [row for row in rows if row["key"] == key] or _unknown(registry, key, slot)
    except ValueError as error:  # the registry's own kind; it names what there is
        raise ConfigError(str(error)) from error
    console = Console()
    if json:
        console.print(to_json.dumps(rows, indent=1), highlight=False, markup=False, soft_wrap=True)
        return 0
    width = min(WIDEST, console.width) if console.is_terminal else WIDEST
    for line in _table(rows) if key is None else [line for row in rows for line in _details(row, width)]:
        text = Text(line)
        if key is None and console.is_terminal:
            text.truncate(console.width, overflow="ellipsis")
        console.print(text, highlight=False, soft_wrap=not console.is_terminal)
    return 0


def _unknown(registry: Any, key: str, slot: str | None) -> list[dict[str, Any]]:
    """Raises ConfigError with the nearest names: of the slot, or of any."""
    if slot is not None:
        registry.find(slot, key)  # raises
    near = registry.nearest(key, sorted({row["key"] for row in registry.list_blocks()}))
    raise ConfigError(f"no block '{key}'", fix=f"{near}; `petground blocks` lists all")


def _table(rows: list[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    for slot in dict.fromkeys(row["slot"] for row in rows):
        own = [row for row in rows if row["slot"] == slot]
        cells = [
            [row["key"], *_patterns(row), _backends(row), _source(row["paper"]), row["cost"], row["summary"]]
            for row in own
        ]
        widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
        widths[-2] = min(widths[-2], 30)
        lines += ["", f"{slot} ({len(own)}), model.net.{slot}: {SLOTS.get(slot, '')}"]
        for row in cells:
            parts = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
            lines.append("  " + "  ".join(parts).rstrip())
    return [*lines[1:], "", "All of one: petground blocks KEY"]


def _patterns(row: Mapping[str, Any]) -> list[str]:
    """Attention's patterns, each in its own place; no column for the others."""
    if row["slot"] != "attention":
        return []
    return [_in_places(PATTERNS, row["patterns"])]


def _backends(row: Mapping[str, Any]) -> str:
    """What is quicker than plain PyTorch in it, each in its own place: of all its operators together."""
    ways = {way for served in row["operators"].values() for way in served}
    needed = "".join(f" with {option}" for option in row["kernels_need"].values())
    return _in_places(BACKENDS, ways) + needed


def _in_places(names: Sequence[str], here: Collection[str]) -> str:
    return " ".join(name if name in here else " " * len(name) for name in names)


def _source(paper: str) -> str:
    """The arXiv number of a paper; what there is where it has none."""
    return paper.rsplit("arXiv ", 1)[-1].split()[0] if "arXiv " in paper else paper or "-"


def _details(row: Mapping[str, Any], width: int) -> list[str]:
    lines = [f"{row['key']} ({row['slot']})", *_wrapped(row["summary"], "", width), ""]
    lines += [*row["equation"].splitlines(), ""]
    facts = {
        "paper": row["paper"] or "-",
        "built": row["form"],
        "cost": row["cost"],
        "patterns": " ".join(name for name in PATTERNS if name in row["patterns"]),
        "serves": " ".join(row["serves"]),
        "backends": "; ".join(_operator(row, name) for name in row["operators"]),
        "property": row["property"],
        "class": row["module"],
        "preset": ", ".join(f"{name}={_word(value)}" for name, value in row["preset"].items()),
    }
    for name, fact in facts.items():
        if fact:
            lines += _wrapped(fact, f"{name:<10}", width)
    lines += ["", f"YAML: model.net.{row['slot']}: {{name: {row['key']}}}; {'its' if row['options'] else 'no'} options"]
    for name, default in row["options"].items():
        text, words = row["meanings"].get(name, ""), [_word(word) for word in row["choices"].get(name, ())]
        if not all(word in text for word in words):
            text = f"{text.rstrip('.')}; one of {', '.join(words)}"
        lines += _wrapped(text, f"  {name}: {_word(default)}  ", width)
    return [*lines, ""]


def _operator(row: Mapping[str, Any], name: str) -> str:
    if name == "torch_sdpa":
        return "PyTorch's fused attention"
    needed = f", with {row['kernels_need'][name]}" if name in row["kernels_need"] else ""
    return f"{name} ({', '.join(row['operators'][name])}{needed})"


def _wrapped(text: str, before: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=before, subsequent_indent=" " * min(len(before), 10)) or [before]


def _word(value: Any) -> str:
    """As YAML has it."""
    return to_json.dumps(value).strip('"') if value is not None else "null"
