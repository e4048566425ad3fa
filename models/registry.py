"""Blocks by slot and name. To add one, write its class and an entry in its slot's list, `blocks/<slot>/__init__.py`."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from docstring_parser import DocstringStyle, parse
from torch import nn

from petground.models.blocks.attention import BLOCKS as ATTENTION
from petground.models.blocks.contract import Block, BlockError
from petground.models.blocks.fusion import BLOCKS as FUSION
from petground.models.blocks.mixer import BLOCKS as MIXER
from petground.models.blocks.operators import backends_of, operators_of
from petground.models.blocks.placed import checks_its_place
from petground.models.blocks.token_reduction import BLOCKS as TOKEN_REDUCTION

__all__ = ["BLOCKS", "Block", "BlockError", "build", "check_options", "find", "held", "index", "list_blocks", "nearest"]

GIVEN = ("channels", "text_channels", "num_heads")  # what the network tells a block, besides its options


def index(blocks: Iterable[Block]) -> dict[str, dict[str, Block]]:
    """{slot: {key: block}}. Raises BlockError when a slot holds a key twice."""
    slots: dict[str, dict[str, Block]] = {}
    for block in blocks:
        slot = slots.setdefault(block.slot, {})
        if block.key in slot:
            raise BlockError(f"{block.slot} '{block.key}' is registered twice")
        slot[block.key] = block
    return slots


BLOCKS = index((*ATTENTION, *TOKEN_REDUCTION, *MIXER, *FUSION))


def build(slot: str, name: str, **options: Any) -> nn.Module:
    """A new block, e.g. `build("fusion", "contextual_gate", channels=96, text_channels=384, num_heads=4)`.

    Raises BlockError for a slot, name, option or option type that is not known, listing the nearest, and for heads that
    do not divide the channels. The block raises BlockInputError for tensors that do not go with its parameters.
    """
    block = find(slot, name)
    check_options(slot, name, options, complete=True)
    heads, channels = options.get("num_heads", 1), options["channels"]
    if heads < 1 or channels % heads:
        raise BlockError(f"{slot} '{name}': num_heads={heads} does not divide channels={channels}; give 1 or a divisor")
    for option, (inner, its) in held(block, options).items():
        options[option] = build(inner.slot, inner.key, channels=channels, num_heads=heads, **its)
    try:
        module = block.cls(**options, **block.preset)
    except (TypeError, ValueError) as error:
        raise BlockError(f"{slot} '{name}': {error}") from error
    checks_its_place(module, block, channels)
    return module


def list_blocks(slot: str | None = None) -> list[dict[str, Any]]:
    """Every registered block as plain data: what its `Block` says, and what its code says.

    equation: the class's description; options: name -> default; meanings: option -> its line there; choices: option ->
    words that it takes; operators: kernel that the code calls -> backends of that kernel;
    kernels_need: kernel -> option without which none of them serves.
    """
    if slot is not None and slot not in BLOCKS:
        raise BlockError(f"no slot '{slot}'; {nearest(slot, BLOCKS)}")
    rows = []
    for name, blocks in BLOCKS.items():
        for block in blocks.values() if slot in (None, name) else ():
            options = {
                key: _plain(parameter.default)
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
                    "property": block.property,
                    "module": f"{block.cls.__module__}:{block.cls.__qualname__}",
                    "preset": {key: _plain(value) for key, value in block.preset.items() if key not in ("key", "name")},
                    "options": options,
                    "choices": {key: words for key, words in _choices(block).items() if key in options},
                    "equation": _described(block.cls)[0],
                    "meanings": {key: text for key, text in _described(block.cls)[1].items() if key in options},
                    "kernels_need": dict(block.kernels_need),
                    "operators": {name: _backends(name) for name in operators_of(block.cls, block.preset)},
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
            raise BlockError(f"{slot} '{name}' has no option '{key}'; {nearest(key, parameters)}")
    hints = get_type_hints(cls.__init__)
    for key, value in options.items():
        if key not in block.holds and not _fits(value, hints.get(key, Any)):
            raise BlockError(f"{slot} '{name}': {key} is {value!r}, expected {_words(hints[key])}")
    held(block, options)
    missing = [k for k, p in parameters.items() if p.default is inspect.Parameter.empty and k not in options]
    if complete and missing:
        raise BlockError(f"{slot} '{name}' needs {', '.join(missing)}")


def find(slot: str, name: str) -> Block:
    """Raises BlockError for a slot or name that is not known, listing the nearest."""
    if slot not in BLOCKS:
        raise BlockError(f"no slot '{slot}'; {nearest(slot, BLOCKS)}")
    if name not in BLOCKS[slot]:
        raise BlockError(f"no {slot} block '{name}'; {nearest(name, BLOCKS[slot])}")
    return BLOCKS[slot][name]


def held(block: Block, options: Mapping[str, Any]) -> dict[str, tuple[Block, dict[str, Any]]]:
    """Option -> the attention block that it names, see `Block.holds`, and that block's own options.

    Raises BlockError as `check_options`, and when the block does not serve the pattern.
    """
    found = {}
    for option, pattern in block.holds.items():
        given = options.get(option)
        if given is None:
            continue
        where = f"{block.slot} '{block.key}': {option}"
        if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
            raise BlockError(f"{where} is {given!r}; name a block and its options, as in {{name: softmax}}")
        its = {key: value for key, value in given.items() if key != "name"}
        for key in GIVEN:
            if key in its:
                raise BlockError(f"{where} has no {key} of its own; those of the {block.slot} hold")
        try:
            inner = find("attention", given["name"])
            check_options(inner.slot, inner.key, its)
        except BlockError as error:
            raise BlockError(f"{where}: {error}") from error
        if pattern not in inner.patterns:
            serving = ", ".join(_serving(pattern))
            raise BlockError(f"{where}: '{inner.key}' does not serve the {pattern} pattern; these do: {serving}")
        found[option] = inner, its
    return found


def _serving(pattern: str) -> list[str]:
    return [key for key, block in BLOCKS["attention"].items() if pattern in block.patterns]


def _choices(block: Block) -> dict[str, list[Any]]:
    """Words of each option that is one of some, null among them where it may be; of what it holds, the names."""
    found = {option: [*_serving(pattern), None] for option, pattern in block.holds.items()}
    for key, hint in get_type_hints(block.cls.__init__).items():
        parts = [hint, *get_args(hint)] if get_origin(hint) is not Literal else [hint]
        words = [word for part in parts if get_origin(part) is Literal for word in get_args(part)]
        if words:
            found[key] = [*words, None] if type(None) in parts else words
    return found


def _described(cls: type[nn.Module]) -> tuple[str, dict[str, str]]:
    """The docstring's text without its sections, and each argument's line."""
    told = parse(inspect.getdoc(cls) or "", DocstringStyle.GOOGLE)
    text = "\n\n".join(part for part in (told.short_description, told.long_description) if part)
    lines = (
        (name, " ".join((one.description or "").split())) for one in told.params for name in one.arg_name.split(", ")
    )
    return text, dict(lines)


def _backends(operator: str) -> list[str]:
    return ["sdpa"] if operator == "torch_sdpa" else backends_of(operator)


def _plain(default: Any) -> Any:
    """A default as JSON has it."""
    if default is inspect.Parameter.empty:
        return None
    return list(default) if isinstance(default, tuple) else default


def nearest(word: str, known: Iterable[str]) -> str:
    """ "did you mean ...?" where names are near, else what is known."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"


def _fits(value: Any, hint: Any) -> bool:
    """Whether a config's value is of an option's type; no option takes a number that is not finite."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if kind is Literal:
        return value in parts
    if kind in (Sequence, list):  # how many it takes is the block's to say
        return isinstance(value, (list, tuple)) and all(_fits(one, parts[0]) for one in value)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (bool, str, NoneType):
        return isinstance(value, hint)
    return True


def _words(hint: Any) -> str:
    """The type for a message, e.g. "a list of int or null"."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return " or ".join(dict.fromkeys(_words(part) for part in parts))
    if kind is Literal:
        return ", ".join(map(str, parts))
    if kind in (Sequence, list):
        return f"a list of {_words(parts[0])}"
    return {NoneType: "null", float: "a finite float"}.get(hint) or str(hint.__name__)
