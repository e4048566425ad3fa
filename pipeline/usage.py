"""How a function becomes a command line: its parameters are the flags, its docstring is the help.

Plain argparse over signature and docstring: a wrong value is answered with the flag as it is typed, an unknown flag
with the nearest one.
"""

from __future__ import annotations

import argparse
import difflib
import inspect
import math
import shutil
import sys
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from docstring_parser import DocstringStyle, parse

from petground.labeling.errors import ConfigError

__all__ = ["TABLES", "absent_inputs", "parser_of", "require_place"]

WRITTEN = ("out", "keep_map")  # paths that a command makes; all others must be there
TABLES = frozenset((".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".xls", ".xlsx", ".txt", ".zip"))
DATA = {"findings.parquet": "a labelling run", "truth.parquet": "phantom exams"}  # which a folder with this file is
WIDEST = 110


def parser_of(name: str, function: Callable[..., Any], positional: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser of `petground <name>`; `positional` parameters come without a flag, those that are off are switches.

    Understood are Path, str, int, float, bool, Literal, a list of one of them, each with `| None`; anything else raises
    TypeError.
    """
    parser = _Parser(prog=f"petground {name}", description=_about(function), formatter_class=_Formatter)
    told = {p.arg_name: p.description for p in parse(function.__doc__ or "", DocstringStyle.GOOGLE).params}
    kinds = get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    for parameter in sorted(parameters, key=lambda p: p.default is False):  # switches last, as they read best
        kind, text = _kind(kinds[parameter.name]), (told[parameter.name] or "").replace("%", "%%")
        if parameter.name in positional:
            if parameter.default is not parameter.empty:
                kind |= {"nargs": "*" if "nargs" in kind else "?", "default": parameter.default}
            parser.add_argument(parameter.name, help=text, **kind)
            continue
        flag = f"--{parameter.name.replace('_', '-')}"
        if "nargs" in kind:
            kind |= {"action": "extend"}  # what a flag given twice said first counts, too
        if parameter.default is False:
            parser.add_argument(flag, action="store_true", help=text)
        elif parameter.default is parameter.empty:
            left_out = type(None) in get_args(kinds[parameter.name])  # to be told by a caller, None on the command line
            parser.add_argument(flag, required=not left_out, help=text, **kind)
        else:
            parser.add_argument(flag, default=parameter.default, help=text, **kind)
    return parser


def absent_inputs(values: Mapping[str, Any]) -> list[Path]:
    """Paths that a command was given to read and that are not there."""
    given = (value if isinstance(value, list) else [value] for name, value in values.items() if name not in WRITTEN)
    return [path for several in given for path in several if isinstance(path, Path) and not path.exists()]


def require_place(out: Any, files: Sequence[str] = (), joins: Collection[str] = ()) -> None:
    """Raises ConfigError where --out cannot be made: a file is in its place, it is named like one and is none, or what
    lies in it is not this command's to write among.

    files: suffixes that this command does write one file under; otherwise --out is a folder. joins: those of DATA's
    files beside which it may write.
    """
    if not isinstance(out, Path):
        return
    alone = out.suffix.lower() in files
    for name, data in DATA.items():
        if not alone and name not in joins and (out / name).is_file():
            raise ConfigError(f"--out {out} holds {name}: it is the folder of {data}", fix="give another folder")
    if not alone and out.is_file():
        raise ConfigError(f"--out {out} is a file", fix="give a folder")
    if (above := next((path for path in out.absolute().parents if path.exists()), None)) and not above.is_dir():
        raise ConfigError(f"--out {out} lies under {above.name}, which is a file", fix="give another place")
    if not alone and out.suffix.lower() in TABLES and not out.is_dir():
        also = f", or a name that ends in {' or '.join(files)}" if files else ""
        raise ConfigError(
            f"--out {out.name} is named like a file, and a folder would be made there",
            fix=f"give a folder{also}, e.g. --out {out.with_suffix(files[0] if files else '')}",
        )


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Paragraphs stay paragraphs; each flag tells its default, where it has one, or that it is required."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.required and action.option_strings:
            return f"{text} (required)"
        if any(action.default is none for none in (None, False, argparse.SUPPRESS)) or "default:" in text.lower():
            return text
        value = action.default
        shown = "true" if value is True else f"{value:g}" if isinstance(value, float) else value
        return f"{text} (default: {shown})"


class _Parser(argparse.ArgumentParser):
    """As argparse's; --min_confidence is --min-confidence; what is unknown is answered with the nearest flag."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        words = [word.partition("=") for word in (sys.argv[1:] if args is None else args)]
        typed = ["".join((w.replace("_", "-") if w.startswith("--") else w, *rest)) for w, *rest in words]
        flags = sorted(flag for action in self._actions for flag in action.option_strings)
        ours = typed[: typed.index("--")] if "--" in typed else typed
        named = [word.partition("=")[0] for word in ours if word.startswith("--")]
        for word in named:  # looked for first: a mistyped flag is not a missing one
            if not any(flag.startswith(word) for flag in flags):
                near = difflib.get_close_matches(word, flags, n=2, cutoff=0.6)
                self.error(f"unknown: {word}" + (f"; did you mean {' or '.join(near)}?" if near else ""))
        found, rest = self.parse_known_args(typed, namespace)
        if rest:
            self.error(f"unknown: {' '.join(rest)}")
        return found

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n`{self.prog} --help` tells what it takes\n")


def _about(function: Callable[..., Any]) -> str:
    text = (inspect.getdoc(function) or "").split("\nArgs:")[0].strip()
    return "\n\n".join(textwrap.fill(" ".join(part.split()), width=_width()) for part in text.split("\n\n"))


def _width() -> int:
    return min(WIDEST, max(40, shutil.get_terminal_size().columns - 2))


def _kind(annotation: Any) -> dict[str, Any]:
    """What argparse is told of a parameter's type."""
    if get_origin(annotation) in (Union, UnionType):
        rest = [kind for kind in get_args(annotation) if kind is not type(None)]
        if len(rest) == 1:
            return _kind(rest[0])
    if get_origin(annotation) is Literal:
        return {"choices": get_args(annotation)}
    if get_origin(annotation) is list:
        return {"nargs": "+", **_kind(get_args(annotation)[0])}
    if annotation is bool:
        return {"type": _switch, "metavar": "{true,false}"}
    if annotation in _READ:
        return {"type": _READ[annotation]}
    raise TypeError(f"no flag can be made for {annotation}")


def _path(text: str) -> Path:
    if not text.strip():  # an unset variable of a script would mean the working directory
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number")
    return value


def _switch(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")
    return text.lower() == "true"


_READ: dict[Any, Callable[[str], Any]] = {Path: _path, str: str, int: _whole, float: _number}
