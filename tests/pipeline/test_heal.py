"""A WORK folder that was damaged between two runs: the next run makes anew what was, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from small_exams import archive, run, tables

from petground.labeling.site import Site
from petground.pipeline.extraction import whole_shard
from petground.pipeline.label_plan import plan
from petground.pipeline.nifti import read_nifti
from petground.pipeline.reports import open_export

NAMES = ["e00", "e01", "e02"]
MASK, PET, SHARD = "labels/e01/f001.nii.gz", "exams/e01/pet.nii.gz", "extract/*.parquet"


def emptied(content: bytes) -> bytes:
    return b""


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def zeroed(content: bytes) -> bytes:
    """As a file system leaves a file that was not on disk yet when the power went: its size, without its content."""
    return bytes(len(content))


def one_bit(content: bytes) -> bytes:
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def beheaded(content: bytes) -> bytes:
    """A Parquet file's end, which tells its layout, is whole."""
    return bytes(len(content) // 2) + content[len(content) // 2 :]


def files(out: Path) -> dict[str, bytes]:
    kinds = ("*.nii.gz", "*.parquet")
    return {p.relative_to(out).as_posix(): p.read_bytes() for kind in kinds for p in out.rglob(kind)}


def stamps(out: Path) -> dict[str, int]:
    made = [*out.rglob("stage.json"), *out.glob("extract/*.parquet")]
    return {p.relative_to(out).as_posix(): p.stat().st_mtime_ns for p in made}


@pytest.mark.parametrize(
    ("what", "damage", "remade"),
    [
        (MASK, cut, {"labels/e01"}),
        (MASK, emptied, {"labels/e01"}),
        (MASK, zeroed, {"labels/e01"}),
        (MASK, one_bit, {"labels/e01"}),
        ("labels/e01/stage.json", emptied, {"labels/e01"}),
        (PET, cut, {"exams/e01"}),
        (PET, emptied, {"exams/e01"}),
        ("exams/e01/stage.json", cut, {"exams/e01"}),
        (SHARD, cut, {"extract"}),
        (SHARD, emptied, {"extract"}),
        (SHARD, zeroed, {"extract"}),
        (SHARD, beheaded, {"extract"}),
        ("labels.parquet", cut, set()),  # tables are written anew by every run
        ("exams.parquet", emptied, set()),
    ],
)
def test_a_damaged_file_is_made_anew_and_only_that(
    tmp_path: Path, what: str, damage: Callable[[bytes], bytes], remade: set[str]
) -> None:
    export, out = archive(tmp_path, NAMES), tmp_path / "work"
    run(export, out)
    whole, rows, before = files(out), tables(out), stamps(out)
    (victim,) = out.glob(what)
    victim.write_bytes(damage(victim.read_bytes()))
    told = plan(open_export(export[0]), export[1], out, Site())
    if what == MASK:
        assert (told.reports, told.images, told.labels) == (0, 0, 1), "--dry-run sees it"
    elif what == PET:
        assert (told.reports, told.images) == (0, 1)
    elif what == SHARD:
        assert told.reports == 3
    run(export, out)
    assert tables(out) == rows
    assert files(out) == whole
    changed = {name.rpartition("/")[0] for name, when in stamps(out).items() if before[name] != when}
    assert changed == remade


def test_any_bit_of_a_shard_that_changes_what_it_says_is_noticed(tmp_path: Path) -> None:
    """Of its pages, of what tells where these lie, and of the record; a version or a statistic says nothing."""
    export, out = archive(tmp_path, NAMES), tmp_path / "work"
    run(export, out)
    (shard,) = out.glob(SHARD)
    content, whole = shard.read_bytes(), pq.read_table(shard, partitioning=None)
    noticed, bits = 0, range(0, 8 * len(content), 97)
    for bit in bits:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        shard.write_bytes(damaged)
        if not whole_shard(shard):
            noticed += 1
            continue
        table = pq.read_table(shard, partitioning=None)
        assert table.to_pylist() == whole.to_pylist(), bit
        told, wanted = (json.loads(one.schema.metadata[b"petground.extract"]) for one in (table, whole))
        assert told == wanted, bit
    assert noticed > len(bits) / 4, "a small shard is a third of pages and record"


def test_a_missing_file_is_made_anew(tmp_path: Path) -> None:
    export, out = archive(tmp_path, NAMES), tmp_path / "work"
    run(export, out)
    whole = files(out)
    (out / MASK).unlink()
    (out / "exams/e02/pet.nii.gz").unlink()
    run(export, out)
    assert files(out) == whole
    assert read_nifti(out / MASK, "label").array.any()
    for path in out.glob(SHARD):
        pq.read_table(path)
