"""The `petground` command: a table of commands, and what becomes of their errors.

The commands are named by string and imported when called: `petground --help` stays quick, and the command line, where
all rooms meet, needs no import of networks (design: `pipeline` knows nothing of `training`).
"""

from __future__ import annotations

import difflib
import errno
import importlib.metadata
import pkgutil
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rich.console import Console

from petground.labeling.errors import ConfigError, InputError, PetgroundError
from petground.pipeline.usage import absent_inputs, parser_of, require_place

__all__ = ["main"]

OK, FAILURE, USAGE, FAILED_CASES = 0, 1, 2, 3
TOLD = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
"""What the disk says that a user can mend; anything else is a fault of ours and keeps its traceback."""


class Command(NamedTuple):
    """Where a command's function lies, one line about it, which of its parameters come without a flag.

    files: suffixes under which --out is one file; otherwise it is a folder. joins: of usage.DATA, what --out may hold.
    """

    function: str
    about: str
    positional: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    joins: tuple[str, ...] = ()


COMMANDS: dict[str, Command] = {
    "demo": Command(
        "petground.pipeline.commands.demo:demo",
        "phantom exams -> labels -> a trained model -> grounded report -> review pack",
    ),
    "phantom": Command(
        "petground.pipeline.commands.phantom:phantom",
        "make PET/CT exams with known lesions and reports",
        joins=("truth.parquet",),
    ),
    "extract": Command(
        "petground.pipeline.commands.extract:extract",
        "reports in, findings out; no images",
        files=(".parquet",),
        joins=("findings.parquet",),
    ),
    "reports": Command(
        "petground.pipeline.commands.reports:reports",
        "FHIR and HL7 v2 exports to a report table",
        ("export",),
        (".parquet", ".csv", ".jsonl"),
    ),
    "fetch": Command("petground.pipeline.commands.fetch:fetch", "the PET/CTs of a report export by DICOMweb"),
    "label": Command(
        "petground.pipeline.commands.label:label",
        "reports and exams in, 3D weak labels out",
        joins=("findings.parquet",),
    ),
    "second-reading": Command(
        "petground.pipeline.commands.second_reading:second_reading",
        "a local language model reads the reports too, for a consensus",
        joins=("findings.parquet",),
    ),
    "train": Command("petground.training.cli:main", "fit a grounding model: `train fit --config ...` (LightningCLI)"),
    "evaluate": Command("petground.training.evaluate:evaluate", "F1 and Dice of a model or peer, with text controls"),
    "compare": Command(
        "petground.training.compare:compare", "several evaluations side by side, with paired tests", ("evaluations",)
    ),
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
    "plans": Command(
        "petground.pipeline.commands.plans:plans",
        "nnU-Net plans network and patch for an exported data set",
        ("dataset",),
        (".json",),
    ),
    "deidentify": Command(
        "petground.pipeline.commands.deidentify:deidentify", "names, numbers, dates out of reports and DICOM"
    ),
    "send": Command("petground.pipeline.commands.send:send", "DICOM SEG and SR to a PACS by DICOMweb", ("path",)),
    "blocks": Command("petground.pipeline.commands.blocks:blocks", "every block that a config can name", ("key",)),
    "info": Command("petground.pipeline.commands.info:info", "versions, device, what is installed"),
}
RAW = {"train"}  # gets its arguments as they are


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0 ok, 1 failure, 2 usage, 3 finished with failed cases."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["help"] and len(arguments) > 1:
        arguments = [*arguments[1:], "--help"]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        Console().print(_overview(), highlight=False, markup=False, soft_wrap=True)
        return OK if arguments else USAGE
    if arguments[0] == "--version":
        Console().print(f"petground {importlib.metadata.version('petground')}", highlight=False)
        return OK
    name, rest = _named(arguments)
    if name not in COMMANDS:
        return _unknown(name, rest)
    try:
        return _run(name, rest)
    except ConfigError as error:
        _complain(str(error))
        return USAGE
    except PetgroundError as error:
        _complain(str(error))
    except KeyboardInterrupt as stop:
        _complain(str(stop) or "stopped; what is finished is kept, the same command goes on from there")
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output is gone: `petground ... | head`
    except OSError as error:
        if error.errno not in TOLD:
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
    values = vars(parser_of(name, function, command.positional).parse_args(arguments))
    require_place(values.get("out"), command.files, command.joins)
    try:
        return int(function(**values) or OK)
    except InputError as error:
        if absent_inputs(values):  # what was typed is wrong, not what lies in the files
            raise ConfigError(error.message, case=error.case, fix=error.fix) from error
        raise


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


def _unknown(name: str, rest: list[str]) -> int:
    if parts := [f"  petground {c}  {COMMANDS[c].about}" for c in COMMANDS if c.startswith(f"{name} ")]:
        asked = any(word in ("-h", "--help") for word in rest)
        Console(stderr=not asked).print("\n".join(parts), highlight=False, markup=False, soft_wrap=True)
        return OK if asked else USAGE
    near = difflib.get_close_matches(name, COMMANDS, n=2, cutoff=0.4) or [c for c in COMMANDS if c.startswith(name)]
    _complain(f"no command '{name}'" + (f"; did you mean {' or '.join(near)}?" if near else "; see petground --help"))
    return USAGE


def _complain(text: str) -> None:
    Console(stderr=True).print(f"petground: {text}", style="bold red", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
