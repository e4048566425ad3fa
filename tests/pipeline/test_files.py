"""Files that are kept between runs: what cannot be read counts as not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from petground.pipeline.files import read_json, write_json
from petground.pipeline.phantom.write import MARK, finished


def test_an_object_is_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1, None]})
    assert read_json(tmp_path / "a.json") == {"b": [1, None]}
    assert read_json(tmp_path / "missing.json") == {}


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff\xfe", b'{"cut": '])
def test_a_damaged_mark_means_that_the_work_is_to_be_done(tmp_path: Path, content: bytes) -> None:
    mark = tmp_path / "truth" / "E1" / MARK
    mark.parent.mkdir(parents=True)
    mark.write_bytes(content)
    assert read_json(mark) == {}
    assert finished(tmp_path, "E1", "nifti", "code") is None
