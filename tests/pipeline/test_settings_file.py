"""Settings files: what PyYAML lets pass in silence is told, with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petground.labeling.errors import ConfigError
from petground.pipeline.commands.label import read_site
from petground.pipeline.settings_file import read_settings

GROUPED = """\
slice_origin: head
groups:
  - scanner: GE / Discovery / A
    slice_first: 0
  - from: 2018-01-01
    slice_grid: ct
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "site.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "slice_origin: head\nslice_first: 1\nslice_origin: feet\n",
            "line 3: 'slice_origin' stands .*line 1",
        ),
        ("{slice_first: 0, slice_first: 1}\n", "line 1: 'slice_first' stands .* first on line 1"),
        (GROUPED.replace("    slice_grid", "    from: 2019-01-01\n    slice_grid"), "line 6: 'from' .* line 5"),
        (GROUPED + "groups: []\n", "line 7: 'groups' .* line 2"),
        ("slice_first: 1\n\n\nslice_origin: [head\nname: x\n", "line 5 is not YAML"),
        (
            "groups:\n  - half_life_from_code: true\n    slice_first: 0\n",
            "'half_life_from_code' stands in a group",
        ),
        ("groups:\n  - patient_ids: dicom\n", "'patient_ids' stands in a group"),
        ("groups:\n  - scaner: GE\n    slice_first: 0\n", "'scaner' of a group .did you mean scanner"),
        ("groups:\n  - scanner: GE\n    slice_orgin: feet\n", "'slice_orgin' of a group .did you mean slice_origin"),
        ("scaner: GE\n", "unknown site setting 'scaner' .known: "),
        ("half_life_form_code: true\n", "did you mean half_life_from_code"),
        ("[a, b]: 1\n", "not YAML"),
        ("from: 2018-02-31\n", "not YAML"),
        ("- a list\n", "must hold settings as 'key: value'"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_site(write(tmp_path, text))


def test_a_good_file_reads_as_before(tmp_path: Path) -> None:
    site = read_site(write(tmp_path, GROUPED))
    assert [group.changes for group in site.groups] == [{"slice_first": 0}, {"slice_grid": "ct"}]
    assert read_settings(write(tmp_path, "")) == {}
    merged = "base: &b {slice_first: 0}\nown:\n  <<: *b\n  slice_first: 1\n"
    assert read_settings(write(tmp_path, merged))["own"] == {"slice_first": 1}, "a merged key may be written over"


def test_no_file_is_told_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no site file .*configs/site"):
        read_site(tmp_path / "none.yaml")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60) | st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: str | bytes) -> None:
    path = tmp_path_factory.mktemp("s") / "any.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    try:
        values = read_settings(path)
    except ConfigError:
        return
    assert isinstance(values, dict)
