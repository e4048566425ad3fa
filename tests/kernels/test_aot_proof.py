"""The table that proves every launch compiles: what its keys are made of, what a check finds, going on after a kill."""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: pip install 'petground[triton]'")
runtime = importlib.import_module("petground.kernels._triton.runtime")
aot_build = importlib.import_module("petground.kernels.aot_build")
aot_proof = importlib.import_module("petground.kernels.aot_proof")

SOURCE = '''
import triton
import triton.language as tl

FACTOR = tl.constexpr(3)
OTHER = [1, 2]


@triton.jit
def inner(x):
    return x * FACTOR


@triton.jit
def kernel(x, count, BLOCK: tl.constexpr):
    """What it does."""
    place = tl.arange(0, BLOCK)  # all of them
    tl.store(x + place, inner(tl.load(x + place, mask=place < count)), mask=place < count)
'''


def _key(folder: Path, source: str = SOURCE, arch: int = 90, warps: int = 4, **changed: Any) -> str:
    file = folder / f"made_{abs(hash(source))}.py"
    file.write_text(source)
    spec = importlib.util.spec_from_file_location("made", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    arguments = {"x": torch.empty(64, device="meta"), "count": 48, "BLOCK": 64} | changed
    found: str = aot_build.key_of(runtime.Launch(module.kernel, arguments, warps, 2), arch)
    return found


def test_a_key_does_not_hang_on_comments_docstrings_and_lines(tmp_path: Path) -> None:
    moved = SOURCE.replace("# all of them", "# each").replace("What it does.", "Otherwise.").replace("@", "\n\n@")
    spaced = moved.replace("x * FACTOR", "(x  *  FACTOR)")
    assert _key(tmp_path, spaced) == _key(tmp_path)
    without = SOURCE.replace('    """What it does."""\n', "").replace("OTHER = [1, 2]", "OTHER = [2]")
    assert _key(tmp_path, without) == _key(tmp_path)


@pytest.mark.parametrize(
    ("was", "becomes"),
    [("x * FACTOR", "x + FACTOR"), ("constexpr(3)", "constexpr(4)"), ("mask=place < count))", "mask=place <= count))")],
    ids=["an inner function", "a constant", "the kernel"],
)
def test_a_key_hangs_on_what_the_kernel_reaches(tmp_path: Path, was: str, becomes: str) -> None:
    assert was in SOURCE
    assert _key(tmp_path, SOURCE.replace(was, becomes)) != _key(tmp_path)


def test_a_key_hangs_on_everything_that_is_launched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [
        _key(tmp_path), _key(tmp_path, arch=80), _key(tmp_path, warps=8), _key(tmp_path, BLOCK=128),
        _key(tmp_path, count=47), _key(tmp_path, count=2**31), _key(tmp_path, count=1),
        _key(tmp_path, x=torch.empty(64, device="meta", dtype=torch.float16)),
    ]  # fmt: skip
    monkeypatch.setattr("triton.__version__", "0.0")
    assert len({*keys, _key(tmp_path)}) == len(keys) + 1
    monkeypatch.undo()
    assert _key(tmp_path, count=32) == keys[0]  # as divisible, so the same machine code


def test_a_global_that_might_change_unseen_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="reads OTHER, a list"):
        _key(tmp_path, SOURCE.replace("x * FACTOR", "x * OTHER"))


@pytest.fixture
def wanted(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two small kernels, compiled in this process."""
    every = {key: (90, case, one) for key, (case, one) in aot_build.keyed(90).items()}
    small = [key for key, (_, _, one) in every.items() if one.kernel.__name__ in ("sum_weights", "copy_rows")][:2]

    def compiled(wanted: Any, jobs: int) -> Iterator[tuple[str, Any]]:
        for key, (arch, _, _) in wanted.items():
            yield key, aot_build.build_key(key, arch)

    monkeypatch.setattr(aot_proof, "compiled", compiled)
    monkeypatch.setattr(aot_proof, "_current_keys", lambda: set(every))
    return {key: every[key] for key in small}


def test_a_check_finds_what_is_missing_spills_or_is_not_what_compiling_gives(
    tmp_path: Path, wanted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "aot.csv"
    assert aot_proof.check(table, wanted, 2, 0, 1) == 1
    assert f"--proof {table}" in capsys.readouterr().out
    assert aot_proof.fill(table, wanted, 1) == 0
    rows = aot_proof.read(table)
    assert set(rows) == set(wanted)
    assert all(row.registers > 0 and row.stack == 0 for row in rows.values())
    assert aot_proof.check(table, wanted, 2, 0, 1) == 0

    first, second = rows.values()
    for changed, told in (
        ({first.key: first}, "not in the table"),
        (rows | {second.key: replace(second, stack=8)}, "8 bytes of stack"),
        (rows | {second.key: replace(second, shared=300_000)}, "bytes of shared memory"),
        (rows | {second.key: replace(first, key=second.key, kernel="other")}, "the row of its key is of other"),
        (rows | {second.key: replace(second, registers=second.registers + 1)}, "registers"),
    ):
        capsys.readouterr()
        aot_proof.save(table, changed.values())
        assert aot_proof.check(table, wanted, 2, 0, 1) == 1, told
        assert told in capsys.readouterr().out


def test_a_sample_is_compiled_and_printed_without_a_table(
    wanted: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    aot = importlib.import_module("petground.kernels.aot")
    monkeypatch.setattr(aot, "_wanted", lambda archs, only: wanted)
    monkeypatch.setattr(aot, "compiled", aot_proof.compiled)
    told = []
    for _ in range(2):
        assert aot.main(["--sample", "1", "--seed", "4"]) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]
    assert "1 of 2 launches (--sample 1 --seed 4)" in told[0]
    assert "1 compiled; 0 with stack" in told[0]
    with pytest.raises(SystemExit):
        aot.main(["--proof", "table.csv", "--sample", "1"])
    assert "leave --sample out" in capsys.readouterr().err


def test_filling_drops_rows_of_what_is_no_longer_launched_and_keeps_the_others(tmp_path: Path, wanted: Any) -> None:
    table = tmp_path / "aot.csv"
    aot_proof.fill(table, wanted, 1)
    written = table.read_text()
    row = next(iter(aot_proof.read(table).values()))
    aot_proof.save(table, [*aot_proof.read(table).values(), replace(row, key="gone", arch=80)])
    assert len(aot_proof.read(table)) == 3
    aot_proof.fill(table, dict([next(iter(wanted.items()))]), 1)  # of a part of the launches: the other row stays
    assert table.read_text() == written
    table.write_text(written.replace("registers", "register"))
    with pytest.raises(ValueError, match=r"aot\.csv, line 2: not a row of kernel,case"):
        aot_proof.read(table)


def test_a_killed_fill_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "aot.csv"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = ["-m", "petground.kernels.aot", "--proof", str(table), "--arch", "90", "--only", "write_chosen"]
    process = subprocess.Popen(
        [sys.executable, "-P", *command],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path / "cache")},
        start_new_session=True,
    )
    until = time.monotonic() + 120
    while not table.is_file() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    there = aot_proof.read(table)
    wanted = {key: (90, case, one) for key, (case, one) in aot_build.keyed(90).items()
              if one.kernel.__name__ == "write_chosen"}  # fmt: skip
    assert 0 < len(there) < len(wanted)

    compiled_now: list[str] = []

    def compiled(missing: Any, jobs: int) -> Iterator[tuple[str, Any]]:
        for key in missing:
            compiled_now.append(key)
            yield key, replace(next(iter(there.values())), key=key)

    monkeypatch.setattr(aot_proof, "compiled", compiled)
    monkeypatch.setattr(aot_proof, "_current_keys", lambda: set(wanted))
    assert aot_proof.fill(table, wanted, 1) == 0
    assert sorted(compiled_now) == sorted(set(wanted) - set(there))
    assert set(aot_proof.read(table)) == set(wanted)
    assert "0 left" in capsys.readouterr().out
