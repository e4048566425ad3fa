"""Nuclides by code and by name."""

from __future__ import annotations

import pytest

from petground.labeling.nuclides import HALF_LIFE_S, agrees, nuclide_of_code, nuclide_of_words

# Minutes, as on the package inserts and in DDEP tables; the test allows for half a percent.
USUAL_MIN = {
    "F-18": 109.8, "Ga-68": 67.8, "C-11": 20.4, "N-13": 9.97, "O-15": 2.04, "Rb-82": 1.26, "Cu-64": 762, "Zr-89": 4704,
    "I-124": 6013, "Cu-62": 9.67, "Y-86": 884, "Sc-44": 242, "Y-90": 3846,
}  # fmt: skip


@pytest.mark.parametrize(("name", "minutes"), USUAL_MIN.items())
def test_half_lives(name: str, minutes: float) -> None:
    assert HALF_LIFE_S[name] == pytest.approx(60 * minutes, rel=5e-3)


@pytest.mark.parametrize(
    ("scheme", "value", "name"),
    [
        ("SRT", "C-111A1", "F-18"),
        ("SCT", "77004003", "F-18"),
        ("SNM3", "c-111a1 ", "F-18"),
        ("99SDM", "C-131A3", "Ga-68"),
        ("SRT", "C-131A1", "Ga-66"),
        ("SCT", "63360001", "Zr-89"),
        ("DCM", "126600", "Sc-44"),
        ("SCT", "C-111A1", None),
        ("L", "F18", None),
        (None, None, None),
    ],
)
def test_codes(scheme: str | None, value: str | None, name: str | None) -> None:
    assert nuclide_of_code(scheme, value) == name


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("^18^Fluorine", "F-18"),
        ("Fluorine-18", "F-18"),
        ("F18", "F-18"),
        ("18F", "F-18"),
        ("[68Ga]", "Ga-68"),
        ("^94m^Technetium", "Tc-94m"),
        ("Zirconium 89", "Zr-89"),
        ("^99m^Technetium", None),
        ("FDG", None),
        ("", None),
        (None, None),
    ],
)
def test_words(words: str | None, name: str | None) -> None:
    assert nuclide_of_words(words) == name


def test_scanners_write_half_lives_with_their_own_digits() -> None:
    assert all(agrees(seconds, "F-18") for seconds in (6586.2, 6588.0, 6600.0, 6584.04))
    assert not agrees(4057.7, "F-18")
    assert not agrees(4057.7, "Ga-66")


def test_codes_are_those_of_the_standard() -> None:
    """Against pydicom's copy of CID 4020 and of the map from SNOMED RT to SNOMED CT."""
    concepts = pytest.importorskip("pydicom.sr._concepts_dict").concepts
    group = pytest.importorskip("pydicom.sr._cid_dict").cid_concepts[4020]
    to_rt = pytest.importorskip("pydicom.sr._snomed_dict").mapping
    seen = set()
    for scheme, keywords in group.items():
        for keyword in keywords:
            (value, (meaning, _)) = next(iter(concepts[scheme][keyword].items()))
            name = nuclide_of_code(scheme, value)
            seen.add(name)
            assert name == nuclide_of_words(meaning), meaning
            older = to_rt.get(scheme, {}).get(value)
            if name and older:
                assert nuclide_of_code("SRT", older) == name
    assert {name for name in USUAL_MIN if name not in seen} == set()
