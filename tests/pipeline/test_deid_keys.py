"""Keys: ids that depend on the key alone, UIDs that any reader takes, days that are one patient's."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from pydicom.uid import UID

from petground.labeling.errors import ConfigError, InputError
from petground.pipeline.deid.keys import days_shift, keyed_id, keyed_uid, new_key, read_key

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))


def test_ids_hang_on_key_and_prefix() -> None:
    assert keyed_id(KEY, "12345") == keyed_id(KEY, "12345")
    assert len({keyed_id(KEY, "12345"), keyed_id(OTHER, "12345"), keyed_id(KEY, "12346")}) == 3
    assert keyed_id(KEY, "12345", prefix="p")[1:] != keyed_id(KEY, "12345", prefix="e")[1:]
    assert re.fullmatch(r"p[a-z2-7]{16}", keyed_id(KEY, "Müller", prefix="p"))


def test_no_two_of_many_ids_are_alike() -> None:
    assert len({keyed_id(KEY, str(n)) for n in range(20_000)}) == 20_000


def test_uids_are_valid_and_those_of_the_standard_stay() -> None:
    uids = {keyed_uid(KEY, f"1.2.3.{n}") for n in range(2_000)}
    assert len(uids) == 2_000
    assert all(UID(uid).is_valid and uid.startswith("2.25.") and len(uid) <= 64 for uid in uids)
    assert keyed_uid(KEY, "1.2.840.10008.5.1.4.1.1.128") == "1.2.840.10008.5.1.4.1.1.128"
    assert keyed_uid(KEY, "1.2.3\0") == keyed_uid(KEY, "1.2.3"), "padding is no part of a UID"
    assert keyed_uid(KEY, "") == ""


def test_days_are_whole_weeks_back_and_differ_between_patients() -> None:
    days = {days_shift(KEY, f"patient {n}") for n in range(500)}
    assert all(-3640 <= d <= -364 and d % 7 == 0 for d in days)
    assert len(days) > 200


def test_a_new_key_is_for_its_owner_alone_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "site.key"
    new_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(read_key(path)) == 32
    with pytest.raises(InputError, match="is there already"):
        new_key(path)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "site.key"
    new_key(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="others may read"):
        read_key(path)


@pytest.mark.parametrize("content", ["", "secret", "00" * 31, "zz" * 32])
def test_what_is_no_key_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "site.key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(InputError, match="holds no key") as caught:
        read_key(path)
    assert "secret" not in str(caught.value)
