"""The `petground` command: a table of commands, and what becomes of their errors.

The commands are named by string and imported when called: `petground --help` stays quick, and the command line, where
all rooms meet, needs no import of networks (design: `pipeline` knows nothing of `training`).
"""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib.metadata
import inspect
import pkgutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from petground.labeling.errors import PetgroundError

__all__ = ["main"]

OK, FAILURE, USAGE, FAILED_CASES = 0, 1, 2, 3


class Command(NamedTuple):
    """Where a command's function lies, one line about it, which of its parameters come without a flag."""

    function: str
    about: str
    positional: tuple[str, ...] = ()


COMMANDS: dict[str, Command] = {
    "demo": Command(
        "petground.pipeline.commands.demo:demo",
        "phantom exams -> labels -> a trained model -> grounded report -> review pack",
    ),
    "phantom": Command(
        "petground.pipeline.commands.phantom:phantom", "make PET/CT exams with known lesions and reports"
    ),
    "extract": Command("petground.pipeline.commands.extract:extract", "reports in, findings out; no images"),
    "reports": Command(
        "petground.pipeline.commands.reports:reports", "FHIR and HL7 v2 exports to a report table", ("export",)
    ),
    "fetch": Command("petground.pipeline.commands.fetch:fetch", "the PET/CTs of a report export by DICOMweb"),
    "label": Command("petground.pipeline.commands.label:label", "reports and exams in, 3D weak labels out"),
    "second-reading": Command(
        "petground.pipeline.commands.second_reading:second_reading",
        "a local language model reads the reports too, for a consensus",
    ),
    "train": Command("petground.training.cli:main", "fit a grounding model: `train fit --config ...` (LightningCLI)"),
    "evaluate": Command("petground.training.evaluate:evaluate", "F1 and Dice of a checkpoint, with text controls"),
    "ground": Command(
        "petground.pipeline.commands.ground:ground", "masks for a sentence or a whole report on one exam"
    ),
    "review export": Command(
        "petground.pipeline.commands.review:export", "pages for physicians, DICOM SEG and SR", ("work",)
    ),
    "review serve": Command(
        "petground.pipeline.commands.review:serve", "the same pages from a local server that saves decisions", ("work",)
    ),
    "review import": Command(
        "petground.pipeline.commands.review:import_decisions", "physicians' decisions back in", ("work", "decisions")
    ),
    "export": Command(
        "petground.pipeline.commands.export:export", "labels out: nnU-Net, VoxTell, MONAI, Hugging Face", ("work",)
    ),
    "deidentify": Command(
        "petground.pipeline.commands.deidentify:deidentify", "names, numbers, dates out of reports and DICOM"
    ),
    "send": Command("petground.pipeline.commands.send:send", "DICOM SEG and SR to a PACS by DICOMweb", ("path",)),
    "blocks": Command("petground.pipeline.commands.blocks:blocks", "every block that a config can name"),
    "info": Command("petground.pipeline.commands.info:info", "versions, device, what is installed"),
}
RAW = {"train"}  # gets its arguments as they are


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0 ok, 1 failure, 2 usage, 3 finished with failed cases."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        Console().print(_overview(), highlight=False, markup=False, soft_wrap=True)
        return OK if arguments else USAGE
    if arguments[0] == "--version":
        Console().print(f"petground {importlib.metadata.version('petground')}", highlight=False)
        return OK
    name, rest = _named(arguments)
    if name not in COMMANDS:
        return _unknown(name)
    try:
        return _run(name, rest)
    except PetgroundError as error:
        _complain(str(error))
    except KeyboardInterrupt:
        _complain("stopped; what is finished is kept, the same command goes on from there")
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output is gone: `petground ... | head`
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        _complain(f"{error.strerror}: {error.filename or 'the disk'}; what is finished is kept, mend it and run again")
    return FAILURE


def _named(arguments: list[str]) -> tuple[str, list[str]]:
    """`review export ...` is one command of two words."""
    if (
        len(arguments) > 1
        and not arguments[1].startswith("-")
        and any(c.startswith(arguments[0] + " ") for c in COMMANDS)
    ):
        return " ".join(arguments[:2]), arguments[2:]
    return arguments[0], arguments[1:]


def _run(name: str, arguments: list[str]) -> int:
    command = COMMANDS[name]
    if name in RAW:
        return int(_load(command)(arguments) or OK)
    function = _load(command)
    parser = _parser(name, function, command.positional)
    values = parser.instantiate_classes(parser.parse_args(arguments))
    return int(function(**values.as_dict()) or OK)


def _parser(name: str, function: Callable[..., Any], positional: tuple[str, ...]) -> Any:
    """Flags from the function's signature and docstring: typed and checked by jsonargparse, spelt with dashes."""
    from docstring_parser import DocstringStyle, parse
    from jsonargparse import ArgumentParser, set_parsing_settings

    set_parsing_settings(docstring_parse_style=DocstringStyle.GOOGLE)
    parser = ArgumentParser(
        prog=f"petground {name}",
        description=(inspect.getdoc(function) or "").split("\nArgs:")[0].strip(),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    told = {p.arg_name: p.description for p in parse(function.__doc__ or "").params}
    switches = [p.name for p in inspect.signature(function).parameters.values() if p.default is False]
    for parameter in positional:
        parser.add_argument(parameter, type=Path, help=told.get(parameter))
    parser.add_function_arguments(function, skip={*positional, *switches}, as_group=False)
    for parameter in switches:
        parser.add_argument(f"--{parameter}", action="store_true", help=told.get(parameter))
    # jsonargparse names flags as Python names parameters; people type dashes. Both are taken, dashes are shown.
    for action in parser._actions:
        flags = [flag.replace("_", "-") for flag in action.option_strings]
        parser._option_string_actions.update(dict.fromkeys(flags, action))
        action.option_strings = flags
    return parser


def _load(command: Command) -> Callable[..., Any]:
    function: Callable[..., Any] = pkgutil.resolve_name(command.function)
    return function


def _overview() -> str:
    width = max(len(name) for name in COMMANDS)
    lines = [f"  petground {name:<{width}}  {command.about}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "petground: from a PET/CT report archive to a trained, reviewed grounding model. Research use only.",
            "",
            *lines,
            "",
            "`petground COMMAND --help` tells all of one. Exit codes: 0 ok, 1 failure, 2 usage, 3 some cases failed.",
        ]
    )


def _unknown(name: str) -> int:
    near = difflib.get_close_matches(name, COMMANDS, n=2, cutoff=0.4) or [c for c in COMMANDS if c.startswith(name)]
    _complain(f"no command '{name}'" + (f"; did you mean {' or '.join(near)}?" if near else "; see petground --help"))
    return USAGE


def _complain(text: str) -> None:
    Console(stderr=True).print(f"petground: {text}", style="bold red", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
