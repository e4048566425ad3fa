"""Blocks by slot and name: one explicit list, no scanning. To add a block, write its class and one line here."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from torch import nn

from petground.models.blocks.contextual_gate import ContextualGate, NoFusion

__all__ = ["Block", "BlockError", "build", "check_options", "index", "list_blocks"]


class BlockError(ValueError):
    """An unknown slot, block or option; the message lists the nearest names."""


@dataclass(frozen=True)
class Block:
    """One registered block: key is its name in a config, slot the place it fits, paper where it was published."""

    slot: str
    key: str
    cls: type[nn.Module]
    paper: str
    summary: str


def index(blocks: Iterable[Block]) -> dict[str, dict[str, Block]]:
    """{slot: {key: block}}. Raises BlockError when a slot holds a key twice."""
    slots: dict[str, dict[str, Block]] = {}
    for block in blocks:
        slot = slots.setdefault(block.slot, {})
        if block.key in slot:
            raise BlockError(f"{block.slot} '{block.key}' is registered twice")
        slot[block.key] = block
    return slots


BLOCKS = index(
    (
        Block(
            "fusion",
            "contextual_gate",
            ContextualGate,
            "ConTEXTual Net 3D, arXiv 2502.00528",
            "Voxels query the sentence's tokens; tanh of the answer gates the features.",
        ),
        Block("fusion", "none", NoFusion, "", "No text: the plain network, as a control."),
    )
)


def build(slot: str, name: str, **options: Any) -> nn.Module:
    """A new block, e.g. `build("fusion", "contextual_gate", channels=96, text_channels=384, num_heads=4)`.

    Raises BlockError for a slot, name, option or option type that is not known, listing the nearest.
    """
    cls = _find(slot, name).cls
    check_options(slot, name, options, complete=True)
    try:
        return cls(**options)
    except (TypeError, ValueError) as error:
        raise BlockError(f"{slot} '{name}': {error}") from error


def list_blocks(slot: str | None = None) -> list[dict[str, Any]]:
    """Every registered block as {key, slot, paper, summary, options}; `options` maps name to default."""
    if slot is not None and slot not in BLOCKS:
        raise BlockError(f"no slot '{slot}'; {_near(slot, BLOCKS)}")
    rows = []
    for name, blocks in BLOCKS.items():
        for block in blocks.values() if slot in (None, name) else ():
            options = {
                key: None if parameter.default is inspect.Parameter.empty else parameter.default
                for key, parameter in inspect.signature(block.cls).parameters.items()
                if key not in ("channels", "text_channels")
            }
            rows.append(
                {
                    "key": block.key,
                    "slot": name,
                    "paper": block.paper,
                    "summary": block.summary,
                    "module": f"{block.cls.__module__}:{block.cls.__qualname__}",
                    "options": options,
                }
            )
    return rows


def check_options(slot: str, name: str, options: Mapping[str, Any], *, complete: bool = False) -> None:
    """Raises BlockError when an option is unknown or of the wrong type; `complete` also wants the required ones."""
    cls = _find(slot, name).cls
    parameters = inspect.signature(cls).parameters
    for key in options:
        if key not in parameters:
            raise BlockError(f"{slot} '{name}' has no option '{key}'; {_near(key, parameters)}")
    hints = get_type_hints(cls.__init__)
    for key, value in options.items():
        if not _fits(value, hints.get(key, Any)):
            wanted = hints[key]
            words = ", ".join(map(str, get_args(wanted))) if get_origin(wanted) is Literal else wanted.__name__
            raise BlockError(f"{slot} '{name}': {key} is {value!r}, expected {words}")
    missing = [k for k, p in parameters.items() if p.default is inspect.Parameter.empty and k not in options]
    if complete and missing:
        raise BlockError(f"{slot} '{name}' needs {', '.join(missing)}")


def _find(slot: str, name: str) -> Block:
    if slot not in BLOCKS:
        raise BlockError(f"no slot '{slot}'; {_near(slot, BLOCKS)}")
    if name not in BLOCKS[slot]:
        raise BlockError(f"no {slot} block '{name}'; {_near(name, BLOCKS[slot])}")
    return BLOCKS[slot][name]


def _near(word: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (bool, str):
        return isinstance(value, hint)
    return True
