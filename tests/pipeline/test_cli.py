"""The command line: help, usage errors, exit codes, messages without tracebacks."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from petground.labeling.errors import InputError
from petground.pipeline import cli


def raising(error: BaseException) -> object:
    def function(out: Path) -> int:
        """Do it.

        Args:
            out: where to.
        """
        raise error

    return function


@pytest.mark.parametrize("command", sorted(set(cli.COMMANDS) - cli.RAW))
def test_every_command_has_help_for_each_flag(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([*command.split(), "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    parser = cli._parser(command, cli._load(cli.COMMANDS[command]), cli.COMMANDS[command].positional)
    for action in parser._actions:
        assert action.help, f"{command}: {action.option_strings or action.dest} has no help"
    assert f"petground {command}" in text


def test_overview_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"petground {name}" in text for name in cli.COMMANDS)


def test_an_unknown_command_names_its_neighbour(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lable"]) == 2
    assert "did you mean label?" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["label"], ["label", "--reprots", "x"], ["label", "--workers", "many"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            InputError("no PET among 3 series", case="e7", fix="export the PET"),
            "e7: no PET among 3 series (export the PET)",
        ),
        (KeyboardInterrupt(), "the same command goes on"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left"),
        (PermissionError(errno.EACCES, "Permission denied", "/out"), "Permission denied: /out"),
    ],
)
def test_errors_are_told_without_a_traceback(
    error: BaseException, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "_load", lambda command: raising(error))
    assert cli.main(["phantom", "--out", "x"]) == 1
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told


def test_a_programming_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_load", lambda command: raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["phantom", "--out", "x"])


def test_info_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {"petground", "python", "libraries", "accelerator"} <= set(facts)


def test_blocks_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["blocks", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"key": "contextual_gate", "slot": "fusion"}.items() <= {k: rows[0][k] for k in ("key", "slot")}.items()
    assert cli.main(["blocks", "--slot", "fusion", "--json"]) == 0
    assert all(row["slot"] == "fusion" for row in json.loads(capsys.readouterr().out))
    assert cli.main(["blocks", "--slot", "fussion"]) == 1
    assert "fusion" in capsys.readouterr().err
