"""Every `petground` line of README and docs is one that the command line takes; what it does is tested elsewhere."""

from __future__ import annotations

import pkgutil
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from petground.pipeline import cli
from petground.pipeline.usage import parser_of

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)


def _documented() -> Iterator[Any]:
    for page in PAGES:
        for block in FENCED.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("petground "):
                    words = shlex.split(line, comments=True)[1:]
                    yield pytest.param(words, id=f"{page.name}: {' '.join(words)[:60]}")


@pytest.mark.parametrize("words", list(_documented()))
def test_a_documented_line_is_taken(words: list[str]) -> None:
    if words[0] in ("--help", "--version"):
        return
    name, rest = cli._named(words)
    assert name in cli.COMMANDS
    if name in cli.RAW:
        assert rest[0] == "fit"
        return
    rest = rest[: next((n for n, word in enumerate(rest) if word in ("|", ">", "&&", ";")), len(rest))]
    command = cli.COMMANDS[name]
    function = pkgutil.resolve_name(command.function)
    parser = parser_of(name, function, command.positional)
    if "..." in rest:  # of a longer line, the flags that matter there
        known = {flag for action in parser._actions for flag in action.option_strings}
        assert {word for word in rest if word.startswith("--")} <= known
    else:
        parser.parse_args(rest)


def test_there_are_documented_lines() -> None:
    assert len(list(_documented())) > 40
