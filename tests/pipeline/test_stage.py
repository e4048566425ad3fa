"""Stages keep what is whole, remake what changed, and leave nothing half-written."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from petground.labeling.errors import InputError
from petground.pipeline.stage import END, RECORD, content_hash, folder_hash, kept, run_stage, source_hash, sweep


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


@pytest.mark.parametrize("size", [5, 3 * END])
@pytest.mark.parametrize("damage", ["emptied", "cut", "one byte", "zeros at the end"])
def test_a_damaged_result_is_made_again(tmp_path: Path, size: int, damage: str) -> None:
    content = bytes(range(1, 256)) * (size // 255 + 1)

    def work(part: Path) -> dict[str, int]:
        (part / "deep").mkdir()
        (part / "deep" / "mask").write_bytes(content[:size])
        return {"n": 1}

    run_stage(tmp_path / "case", "k", work)
    assert run_stage(tmp_path / "case", "k", work) == ({"n": 1}, False)
    file = tmp_path / "case" / "deep" / "mask"
    whole = file.read_bytes()
    damaged = {
        "emptied": b"",
        "cut": whole[: size // 2],
        "one byte": b"\xff" + whole[1:],
        "zeros at the end": whole[:-3] + bytes(3),
    }
    file.write_bytes(damaged[damage])
    assert (kept(tmp_path / "case") is None) == (damage in ("emptied", "cut")), "a size is looked at every time"
    assert kept(tmp_path / "case", thorough=True) is None
    assert run_stage(tmp_path / "case", "k", work)[1] is True
    assert file.read_bytes() == whole


@pytest.mark.parametrize(
    "record",
    [b"", b"{", b"[]", b"null", b'{"key": "k", "value": {}, "files": ["mask"]}', b'{"files": {"mask": 3}}', b"\xff"],
)
def test_a_damaged_record_or_one_of_another_release_is_none(tmp_path: Path, record: bytes) -> None:
    def work(part: Path) -> dict[str, int]:
        (part / "mask").write_text("x")
        return {"n": 2}

    run_stage(tmp_path / "case", "k", work)
    (tmp_path / "case" / RECORD).write_bytes(record)
    assert kept(tmp_path / "case") is None
    assert run_stage(tmp_path / "case", "k", work) == ({"n": 2}, True)


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
    assert "is empty" in str(caught.value)


def test_a_folder_without_files_says_what_it_holds(tmp_path: Path) -> None:
    folder = tmp_path / "e1"
    (folder / "deep").mkdir(parents=True)
    os.mkfifo(folder / "deep" / "pipe")
    (folder / "gone.dcm").symlink_to(tmp_path / "nothing.dcm")
    (folder / "elsewhere").symlink_to(tmp_path)
    with pytest.raises(InputError) as caught:
        folder_hash(folder)
    told = str(caught.value)
    assert caught.value.reason == "no_exam"
    assert "empty" not in told
    for part in ("broken links (1)", "folders (1)", "pipes, sockets or devices (1)", "links to folders"):
        assert part in told


def test_the_code_that_a_key_hangs_on_is_found_for_packages_and_modules() -> None:
    names = ["petground.kernels", "petground.pipeline.dicom", "petground.pipeline.nifti", "petground.configs"]
    digests = {source_hash(name) for name in names}
    assert len(digests) == len(names)
    assert hashlib.blake2b(digest_size=16).hexdigest() not in digests, "each has some source"
    with pytest.raises(ModuleNotFoundError):
        source_hash("petground.nowhere")
