"""Blocks by slot and name. To add one, write its class and an entry in its slot's list, `blocks/<slot>/__init__.py`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from torch import nn

from petground.models.blocks.attention import BLOCKS as ATTENTION
from petground.models.blocks.contract import Block, BlockError, index
from petground.models.blocks.fusion import BLOCKS as FUSION
from petground.models.blocks.mixer import BLOCKS as MIXER
from petground.models.blocks.token_reduction import BLOCKS as TOKEN_REDUCTION

__all__ = ["BLOCKS", "Block", "BlockError", "build", "check_options", "find", "index", "list_blocks"]

GIVEN = ("channels", "text_channels", "num_heads")  # what the network tells a block, besides its options


BLOCKS = index((*ATTENTION, *TOKEN_REDUCTION, *MIXER, *FUSION))


def build(slot: str, name: str, **options: Any) -> nn.Module:
    """A new block, e.g. `build("fusion", "contextual_gate", channels=96, text_channels=384, num_heads=4)`.

    Raises BlockError for a slot, name, option or option type that is not known, listing the nearest.
    """
    block = find(slot, name)
    check_options(slot, name, options, complete=True)
    try:
        return block.cls(**options, **block.preset)
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
                if key not in (*GIVEN[:2], *block.preset)
            }
            rows.append(
                {
                    "key": block.key,
                    "slot": name,
                    "paper": block.paper,
                    "summary": block.summary,
                    "patterns": sorted(block.patterns),
                    "cost": block.cost,
                    "serves": sorted(block.serves),
                    "form": block.form,
                    "module": f"{block.cls.__module__}:{block.cls.__qualname__}",
                    "options": options,
                }
            )
    return rows


def check_options(slot: str, name: str, options: Mapping[str, Any], *, complete: bool = False) -> None:
    """Raises BlockError when an option is unknown or of the wrong type; `complete` also wants the required ones."""
    block = find(slot, name)
    cls = block.cls
    parameters = {k: p for k, p in inspect.signature(cls).parameters.items() if k not in block.preset}
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


def find(slot: str, name: str) -> Block:
    """Raises BlockError for a slot or name that is not known, listing the nearest."""
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
