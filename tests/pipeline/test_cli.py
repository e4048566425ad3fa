"""The command line: help, usage errors, exit codes, messages without tracebacks."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from petground.labeling.errors import InputError
from petground.pipeline import cli
from petground.pipeline.usage import parser_of, require_place


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
    assert "(default: None)" not in text
    parser = parser_of(command, cli._load(cli.COMMANDS[command]), cli.COMMANDS[command].positional)
    for action in parser._actions:
        assert action.help, f"{command}: {action.option_strings or action.dest} has no help"
    assert f"petground {command}" in text


def test_overview_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"petground {name}" in text for name in cli.COMMANDS)


def test_a_group_of_commands_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["review", "--help"]) == 0
    assert all(f"petground review {name}" in capsys.readouterr().out for name in ("export",))
    with pytest.raises(SystemExit) as stop:
        cli.main(["help", "label"])
    assert stop.value.code == 0
    assert "--reports" in capsys.readouterr().out


def test_an_unknown_command_names_its_neighbour(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lable"]) == 2
    assert "did you mean label" in capsys.readouterr().err


LABEL = "label --reports {reports} --exams {folder} --out {new}"
WRONG_USAGE = [
    "label",
    LABEL + " --workers many",
    LABEL + " --workers 0",
    LABEL + " --memory-gib nan",
    LABEL + " --memory-gib 0",
    LABEL + " --timeout-minutes 0",
    LABEL + " --engine spark",
    LABEL + " --address tcp://x:1",
    LABEL + " --engine dask --cluster {missing}",
    LABEL + " --site {missing}",
    LABEL + " --organs {missing}",
    LABEL + " --weights {missing}",
    LABEL + " --second-reading {missing}",
    "label --reports {missing} --exams {folder} --out {new}",
    "label --reports {reports} --exams {missing} --out {new}",
    "label --reports {reports} --exams {folder} --out {file}",
    "extract --reports {missing} --out {new}",
    "extract --reports {reports} --out {new}.csv",
    "extract --reports {reports} --out {file}/findings.parquet",
    "phantom --out {new} --exams 0",
    "phantom --out {new} --exams 1 --workers 0",
    "phantom --out {new} --seed one",
    "demo --out {new} --exams 0",
    "demo --out {file}",
    "reports {missing} --out {new}.csv",
    "reports {reports} --out {new}.xls",
    "fetch --url nowhere --reports {reports} --out {new}",
    "fetch --url http://localhost:1 --reports {missing} --out {new}",
    "fetch --url http://localhost:1 --reports {reports} --out {new} --workers 0",
    "second-reading --reports {missing} --out {new} --model x",
    "second-reading --reports {reports} --out {new} --model x --batch-size 0",
    "train",
    "train fit --config {missing}",
    "evaluate --labels {folder} --checkpoint {missing} --out {new}",
    "evaluate --labels {folder} --checkpoint {file} --out {new} --controls maybe",
    "ground --exam {folder} --checkpoint {file} --out {new}",
    "ground --exam {missing} --checkpoint {file} --out {new} --text x",
    "review",
    "review exprot",
    "review export {missing} --out {new}",
    "review export {folder} --out {file}",
    "review serve {missing}",
    "review serve {folder} --port http",
    "review import {folder}",
    "review import {missing} {file}",
    "export {missing} --to nnunet --out {new}",
    "export {folder} --to nnunet --out {file}",
    "export {folder} --to bids --out {new}",
    "export {folder} --to nnunet --out {new} --spacing wide",
    "deidentify --key {missing} --reports {reports} --exams {folder} --out {new}",
    "deidentify --key {missing}",
    "send {missing} --url http://localhost:1",
    "send {folder} --url nowhere",
    "blocks --slot fussion",
    "info twice",
    "lable",
]


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    reports, folder, file = tmp_path / "r.csv", tmp_path / "folder", tmp_path / "file"
    reports.write_text("exam_id,report_text\na,Node SUVmax 5.4 slice 7.\n")
    folder.mkdir()
    file.touch()
    return {
        "reports": reports,
        "folder": folder,
        "file": file,
        "missing": tmp_path / "missing",
        "new": tmp_path / "new",
    }


def code_of(arguments: list[str]) -> int | str | None:
    try:
        return cli.main(arguments)
    except SystemExit as stop:
        return stop.code


@pytest.mark.parametrize("line", WRONG_USAGE)
def test_wrong_usage_is_exit_code_2(line: str, places: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(line.format(**places).split()) == 2
    told = capsys.readouterr().err
    assert told.strip()
    assert "Traceback" not in told
    assert len(told.splitlines()) < 25, "what is wrong must not drown in all that would be right"


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command_answers_an_unknown_flag_with_exit_code_2(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rest = ["fit"] if command == "train" else []
    assert code_of([*command.split(), *rest, "--no-such-flag"]) == 2
    assert "no-such-flag" in capsys.readouterr().err


def test_what_is_wrong_with_a_file_is_a_failure_not_usage(places: dict[str, Path]) -> None:
    (places["folder"] / "exams.parquet").write_text("no table")
    assert cli.main(["review", "export", str(places["folder"]), "--out", str(places["new"])]) == 1
    places["reports"].write_text("a,b\n1,2\n")
    assert cli.main(["extract", "--reports", str(places["reports"]), "--out", str(places["new"])]) == 1


def test_a_wrong_flag_is_answered_with_the_nearest_and_the_value_with_what_it_takes(
    places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code_of(["label", "--reprots", "x", "--exams", "x", "--reports", "x", "--out", "x"])
    assert "unknown: --reprots; did you mean --reports" in capsys.readouterr().err
    code_of(f"{LABEL} --workers many".format(**places).split())
    assert "argument --workers: 'many' is not a whole number" in capsys.readouterr().err
    code_of(["label", "--reports", str(places["reports"]), "--exams", str(places["folder"]), "--out", ""])
    assert "argument --out: the path is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "review export {folder} --out {folder}",
        "ground --exam {folder} --checkpoint {reports} --text node --out {folder}",
        "evaluate --labels {folder} --checkpoint {reports} --out {folder}",
        "compare {folder} --out {folder}",
        "label --reports {reports} --exams {exams} --out {folder}",
        "phantom --exams 1 --out {folder}",
    ],
)
def test_nothing_is_written_among_the_data_of_another_command(
    line: str, places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "truth.parquet" if line.startswith("label") else "findings.parquet"
    (tmp_path / "exams").mkdir()
    (places["folder"] / name).write_text("")
    (places["folder"] / "decisions.csv").write_text("a physician's")
    assert code_of(line.format(exams=tmp_path / "exams", **places).split()) == 2
    assert f"holds {name}: it is the folder of" in " ".join(capsys.readouterr().err.split())
    assert (places["folder"] / "decisions.csv").read_text() == "a physician's"
    assert {path.name for path in places["folder"].iterdir()} == {name, "decisions.csv"}


def test_a_folder_of_labels_is_read_and_labelled_into_again(places: dict[str, Path]) -> None:
    (places["folder"] / "findings.parquet").write_text("")
    for name in ("label", "extract", "second-reading"):
        require_place(places["folder"], joins=cli.COMMANDS[name].joins)
    (places["folder"] / "findings.parquet").rename(places["folder"] / "truth.parquet")
    require_place(places["folder"], joins=cli.COMMANDS["phantom"].joins)


def test_extract_makes_no_folder_that_is_named_like_a_table(places: dict[str, Path]) -> None:
    out = places["new"].with_suffix(".csv")
    assert code_of(["extract", "--reports", str(places["reports"]), "--out", str(out)]) == 2
    assert not out.exists()
    assert code_of(["extract", "--reports", str(places["reports"]), "--out", str(out.with_suffix(".parquet"))]) == 0
    assert out.with_suffix(".parquet").is_file()


def test_flags_of_a_function() -> None:
    def function(
        work: Path,
        exams: list[str] | None = None,
        low: float = 0.0,
        port: int = 0,
        ask: bool = True,
        dry_run: bool = False,
    ) -> int:
        """Do it.

        One more
        paragraph.

        Args:
            work: from where.
            exams: which.
            low: 50% or more; default: none.
            port: where.
            ask: whether.
            dry_run: nothing is done.
        """
        return 0

    parser = parser_of("do", function, ("work",))
    found = vars(parser.parse_args(["w", "--exams", "a", "b", "--ask", "false", "--dry_run"]))
    assert found == {"work": Path("w"), "exams": ["a", "b"], "low": 0.0, "port": 0, "ask": False, "dry_run": True}
    assert parser.parse_args(["w", "--exams", "a", "--exams", "b", "c"]).exams == ["a", "b", "c"]
    text = parser.format_help()
    assert "Do it.\n\nOne more paragraph." in text
    assert "where. (default: 0)" in text
    assert "whether. (default: true)" in text
    assert "50% or more; default: none.\n" in text
    assert "default: None" not in text
    assert "default: False" not in text


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
    assert ("contextual_gate", "fusion") in {(row["key"], row["slot"]) for row in rows}
    assert cli.main(["blocks", "--slot", "fusion", "--json"]) == 0
    assert all(row["slot"] == "fusion" for row in json.loads(capsys.readouterr().out))
    assert cli.main(["blocks", "--slot", "fussion"]) == 2
    assert "fusion" in capsys.readouterr().err


def test_blocks_in_a_pipe_are_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["blocks", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert cli.main(["blocks"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert [line.split()[0] for line in lines] == [row["key"] for row in rows]
    assert all(line.endswith(row["summary"]) for line, row in zip(lines, rows, strict=True))


def test_blocks_tell_their_backends(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["blocks", "--slot", "attention"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    assert lines["agent"].split()[:5] == ["agent", "self", "cross", "triton", "2312.08874"]
    assert lines["lightning_attention"].split()[3:6] == ["triton", "chunked", "2405.17381"]
    assert lines["pointer"].split()[4:5] == ["1506.03134"], "additive scores have no fused kernel"
    assert all("chunked with sinks: 0  " in lines[key] for key in ("duo", "moa_spans"))
    assert cli.main(["blocks", "duo"]) == 0
    assert "reference, with sinks: 0)" in capsys.readouterr().out


def test_blocks_fit_a_narrow_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1", "COLUMNS": "80", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["blocks"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert max(map(len, table)) <= 80
    assert any(line.split()[:5] == ["softmax", "self", "cross", "causal", "sdpa"] for line in table)
    assert cli.main(["blocks", "swin_v2_cosine_3d"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_one_block_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["blocks", "evit_fuse"]) == 0
    told = capsys.readouterr().out
    for part in ("softmax_n(", "arXiv 2202.07800", "keep: null  share of", "topk (", "rest=fuse", "{name: evit_fuse}"):
        assert part in told, part
    assert cli.main(["blocks", "lightning2"]) == 0
    assert "one of identity, silu, elu, taylor, hedgehog" in capsys.readouterr().out
    assert cli.main(["blocks", "none"]) == 0  # of two slots
    assert {"none (token_reduction)", "none (fusion)"} <= set(capsys.readouterr().out.splitlines())
    assert cli.main(["blocks", "agnt"]) == 2
    assert "did you mean agent" in capsys.readouterr().err
    assert cli.main(["blocks", "agent", "--slot", "fusion"]) == 2
    assert "contextual_gate" in capsys.readouterr().err
