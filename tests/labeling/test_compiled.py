"""The compiled reader: built as `make compiled` builds it, it reads every report as the interpreted one does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from petground.labeling.extract import extract_findings
from petground.labeling.language.lexicon import load_rules
from petground.labeling.language.pipeline import COMPONENTS, build_pipeline

ROOT = Path(__file__).resolve().parents[2]
FORMS = Path(__file__).with_name("reading_forms.json")
FILES = ("anatomy", "context", "mentions", "sections", "tables")
READER = """
import json, sys
from dataclasses import asdict
from petground.labeling.extract import extract_findings
from petground.labeling.language import discourse, stream
from petground.labeling.language.pipeline import COMPONENTS, build_pipeline
texts, nlp = json.load(sys.stdin), build_pipeline()
print(json.dumps({
    "file": discourse.__file__,
    "row": stream.Row.__mro__[1].__name__,
    "findings": [[asdict(f) for f in extract_findings(text)] for text in texts],
    "docs": [[repr(getattr(doc._, name)) for name in COMPONENTS] for doc in map(nlp, texts[:40])],
}))
"""


def _texts() -> list[str]:
    """Forms one by one, then all in a few long reports: what a sentence leaves for the next is read there too."""
    forms = [form["text"] for form in json.loads(FORMS.read_text(encoding="utf-8"))]
    examples = [rule["example"] for name in FILES for rule in load_rules(name) if isinstance(rule["example"], str)]
    texts = [*forms, *examples]
    joined = ["FINDINGS:\n" + " ".join(texts[i : i + 20]) for i in range(0, len(texts), 20)]
    odd = ["", " \n\t", "SUVmax", "SUVmax 5.2 \ud800 slice 58", "(" * 500 + "SUVmax 5,2", "SUVmax 1" + "0" * 400]
    return [*texts, *joined, *odd]


def _compiler() -> bool:
    command = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    return shutil.which(command.split()[0]) is not None and Path(sysconfig.get_path("include"), "Python.h").is_file()


def _build(source: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PETGROUND_COMPILED": "1", "PYTHONSAFEPATH": ""}
    return subprocess.run(
        [sys.executable, *command], cwd=source, env=environment, capture_output=True, text=True, check=False
    )


def test_a_checkout_is_never_compiled_in_place() -> None:
    done = _build(ROOT, "setup.py", "-q", "build_ext", "--inplace")
    assert done.returncode != 0
    assert "makes a wheel only" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not _compiler(), reason="no C compiler, or no headers of this Python")
def test_the_compiled_reader_reads_the_same(tmp_path: Path) -> None:
    pytest.importorskip("mypyc")
    source, unpacked = tmp_path / "source", tmp_path / "unpacked"
    for room in ("configs", "kernels", "labeling", "models", "pipeline", "training"):
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    built = _build(source, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), ".")
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    assert not wheel.name.endswith("-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    assert {path.name.partition("-")[0] for path in unpacked.iterdir()} == {"petground"}  # nothing else at the top

    texts = _texts()
    environment = os.environ | {"PYTHONPATH": str(unpacked), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-c", READER], input=json.dumps(texts), env=environment, cwd=tmp_path,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    read: dict[str, Any] = json.loads(done.stdout)
    assert Path(read["file"]).is_relative_to(unpacked)
    assert not read["file"].endswith(".py")
    assert read["row"] == "list"
    for text, findings in zip(texts, read["findings"], strict=True):
        assert findings == json.loads(json.dumps([asdict(f) for f in extract_findings(text)])), text
    nlp = build_pipeline()
    for text, components in zip(texts, read["docs"], strict=False):
        doc = nlp(text)
        assert components == [repr(getattr(doc._, name)) for name in COMPONENTS], text
