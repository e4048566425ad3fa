"""Stages keep what is whole, remake what changed, and leave nothing half-written."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from petground.labeling.errors import InputError
from petground.pipeline.stage import content_hash, folder_hash, kept, run_stage, source_hash, sweep


def test_a_key_is_the_same_whatever_the_order_of_settings() -> None:
    assert content_hash({"a": 1, "b": [1.5, None]}) == content_hash({"b": [1.5, None], "a": 1})
    assert content_hash({"a": 1}) != content_hash({"a": 2})


def test_a_stage_runs_once_per_key_and_again_for_another(tmp_path: Path) -> None:
    calls = []

    def work(part: Path) -> dict[str, int]:
        calls.append(part)
        (part / "out.txt").write_text(str(len(calls)))
        return {"n": len(calls)}

    assert run_stage(tmp_path / "case", "k1", work) == ({"n": 1}, True)
    assert run_stage(tmp_path / "case", "k1", work) == ({"n": 1}, False)
    assert run_stage(tmp_path / "case", "k2", work) == ({"n": 2}, True)
    assert (tmp_path / "case" / "out.txt").read_text() == "2"
    assert [p.name for p in tmp_path.iterdir()] == ["case"], "no temporary folder is left"


def test_a_stage_that_fails_leaves_the_earlier_result(tmp_path: Path) -> None:
    run_stage(tmp_path / "case", "k1", lambda part: {"n": 1})

    def breaks(part: Path) -> dict[str, int]:
        (part / "half.txt").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="space"):
        run_stage(tmp_path / "case", "k2", breaks)
    assert run_stage(tmp_path / "case", "k1", breaks) == ({"n": 1}, False)
    assert [p.name for p in tmp_path.iterdir()] == ["case"]


def test_a_result_with_a_file_missing_is_made_again(tmp_path: Path) -> None:
    def work(part: Path) -> dict[str, int]:
        (part / "mask").write_text("x")
        return {}

    run_stage(tmp_path / "case", "k", work)
    (tmp_path / "case" / "mask").unlink()
    assert kept(tmp_path / "case") is None
    assert run_stage(tmp_path / "case", "k", work)[1] is True


def test_sweep_removes_what_a_killed_run_left(tmp_path: Path) -> None:
    (tmp_path / ".case.123.part").mkdir()
    (tmp_path / ".case.123.part" / "half").write_text("half")
    (tmp_path / "case").mkdir()
    sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["case"]


def test_folder_hash_sees_content_and_trusts_an_unchanged_listing(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "1.dcm"
    file.parent.mkdir()
    file.write_bytes(b"aaaa")
    first = folder_hash(tmp_path)
    assert folder_hash(tmp_path, first) == first
    os.utime(file, (1, 1))
    touched = folder_hash(tmp_path, first)
    assert touched["listing"] != first["listing"]
    assert touched["content"] == first["content"], "the same bytes are the same input"
    file.write_bytes(b"aaab")
    assert folder_hash(tmp_path, first)["content"] != first["content"]


def test_a_missing_or_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        folder_hash(tmp_path / "nowhere")
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match="bare") as caught:
        folder_hash(tmp_path / "bare")
    assert caught.value.reason == "no_exam"


def test_the_code_that_a_key_hangs_on_is_found_for_packages_and_modules() -> None:
    names = ["petground.kernels", "petground.pipeline.dicom", "petground.pipeline.nifti", "petground.configs"]
    digests = {source_hash(name) for name in names}
    assert len(digests) == len(names)
    assert hashlib.blake2b(digest_size=16).hexdigest() not in digests, "each has some source"
    with pytest.raises(ModuleNotFoundError):
        source_hash("petground.nowhere")
