"""How an export counts slices: found where it is clear, refused where it is not, told apart by scanner and time."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from petground.labeling.evidence import CONVENTIONS, Convention, sightings
from petground.labeling.infer_numbering import ExamEvidence, judge, tabulate
from petground.labeling.maxima import local_maxima, peaks
from petground.labeling.numbering import slice_number
from petground.labeling.numbering_groups import Inference, infer, inferred_site
from petground.labeling.site import Site, site_from_mapping, site_to_mapping
from tests.labeling.exports import exam, scan, told

HEAD, FEET = Site(), Site(slice_origin="feet", slice_first=0)
GE, SIEMENS, MCT = "GE / Discovery 690 / A", "SIEMENS / Biograph40 / P1", "SIEMENS / Biograph128 mCT / P2"
COUNTED = [c for c in CONVENTIONS if not c.by_instance_number]


def groups(inference: Inference) -> dict[str, str]:
    return {str(g.condition): str(g.verdict.convention) for g in inference.groups if g.exams}


@pytest.mark.parametrize("convention", COUNTED, ids=str)
def test_every_convention_is_found_also_in_stacks_stored_from_the_head(convention: Convention) -> None:
    rng = np.random.default_rng(3)
    verdict = judge(tabulate([exam(rng, str(n), Site(**convention.settings)) for n in range(8)]))
    assert verdict.convention == convention
    first, second = verdict.standings[:2]
    assert first.met > 0.6 * first.findings
    assert first.evidence > second.evidence + 4


def test_instance_numbers_in_no_order_are_found() -> None:
    rng = np.random.default_rng(4)
    shuffled, by_number = [], Site(slice_by_instance_number=True)
    for n in range(6):
        pet, ct, spots = scan(rng)
        pet = replace(pet, instance_numbers=tuple(int(v) + 200 for v in rng.permutation(pet.shape[2])))
        findings = [told(float(pet.array[spot]), slice_number(spot[2], pet, by_number, ct)) for spot in spots]
        shuffled.append(ExamEvidence(str(n), tuple(sightings(pet, findings, Site(), ct=ct))))
    found = judge(tabulate(shuffled)).convention
    assert found == Convention(by_instance_number=True)


def test_grids_that_are_the_same_are_one_candidate_and_no_reason_to_refuse() -> None:
    rng = np.random.default_rng(5)
    verdict = judge(tabulate([exam(rng, str(n), HEAD, ct="same") for n in range(8)]))
    assert verdict.convention == Convention()
    assert Convention(grid="ct") in verdict.standings[0].same


@pytest.mark.parametrize("slips", [0.3, 0.6])
def test_slips_need_more_findings_but_do_not_mislead(slips: float) -> None:
    rng = np.random.default_rng(6)
    verdict = judge(tabulate([exam(rng, str(n), FEET, slips=slips) for n in range(30)]))
    assert verdict.convention == Convention("feet", 0)


@pytest.mark.parametrize("seed", range(12))
def test_random_reports_are_refused(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    found = infer([exam(rng, str(n), HEAD, scanner=(GE, MCT)[n % 2], random=True) for n in range(15)])
    assert found.refusal is not None
    assert "chance" in found.refusal or "too few" in found.refusal


def test_reports_of_other_patients_are_refused() -> None:
    """Real values at real slices, of another exam: the body's ups and downs alone must not decide."""
    rng = np.random.default_rng(7)
    evidence, last = [], None
    for n in range(40):
        pet, ct, spots = scan(rng)
        own = [(float(pet.array[s]), slice_number(s[2], pet, HEAD, ct)) for s in spots]
        if last is not None:
            evidence.append(ExamEvidence(str(n), tuple(sightings(pet, [told(*f) for f in last], Site(), ct=ct))))
        last = own
    assert infer(evidence).refusal is not None


def test_too_few_findings_are_refused() -> None:
    rng = np.random.default_rng(8)
    found = infer([exam(rng, str(n), HEAD, slips=0.0) for n in range(2)])
    assert found.refusal is not None
    assert "too few" in found.refusal
    assert infer([]).refusal is not None


def test_a_stack_cut_off_at_its_end_is_told() -> None:
    """Reports count 7 slices that the export lacks at the head: no convention, and the message says how far off."""
    rng = np.random.default_rng(9)
    evidence = []
    for n in range(10):
        pet, ct, spots = scan(rng)
        findings = [told(float(pet.array[s]), pet.shape[2] - s[2] + 7) for s in spots]
        evidence.append(ExamEvidence(str(n), tuple(sightings(pet, findings, Site(), ct=ct))))
    assert infer(evidence).refusal is not None


def test_slices_one_off_both_ways_suggest_a_tolerance_and_no_second_convention() -> None:
    rng = np.random.default_rng(10)
    verdict = judge(tabulate([exam(rng, str(n), HEAD, slip_slices=1) for n in range(40)]))
    assert verdict.convention == Convention()
    assert any("slice_tolerance" in note for note in verdict.notes)


def test_two_habits_that_nothing_tells_apart_are_refused() -> None:
    rng = np.random.default_rng(11)
    found = infer([exam(rng, str(n), (HEAD, Site(slice_first=0))[n % 3 == 0]) for n in range(60)])
    assert found.refusal is not None
    assert "from the head, from 0" in found.refusal


@pytest.mark.parametrize(("exams", "other"), [(14, FEET), (60, FEET), (40, Site(slice_first=0))])
def test_two_readers_half_and_half_are_called_two_habits_however_many_exams_there_are(exams: int, other: Site) -> None:
    """They are near to each other as evidence goes, but no further exam would part them: each explains its half."""
    rng = np.random.default_rng(21)
    verdict = judge(tabulate([exam(rng, str(n), (HEAD, other)[n % 2]) for n in range(exams)]))
    assert verdict.convention is None
    assert "a part of the findings follows" in verdict.why_not
    assert "too near" not in verdict.why_not
    assert re.search(r"it meets \d+ of the \d+ that the former does not \(evidence \+\d", verdict.why_not)


def test_mixed_by_scanner() -> None:
    rng = np.random.default_rng(12)
    names = (GE, SIEMENS, MCT)
    found = infer([exam(rng, str(n), HEAD if n % 3 == 0 else FEET, scanner=names[n % 3]) for n in range(30)])
    assert found.refusal is None
    site = inferred_site(found, Site(suv_minimum=3.0))
    origins = {name: site.for_exam(name, None).slice_origin for name in names}
    assert origins == {GE: "head", SIEMENS: "feet", MCT: "feet"}
    assert site.for_exam(MCT, None).suv_minimum == 3.0
    assert site_from_mapping(site_to_mapping(site)) == site


def test_mixed_by_year_off_by_one() -> None:
    rng = np.random.default_rng(13)
    dates = [f"{2011 + n % 8}-0{1 + n % 9}-15" for n in range(48)]
    later = Site(slice_first=0)
    found = infer([exam(rng, str(n), HEAD if d < "2015" else later, date=d) for n, d in enumerate(dates)])
    assert found.refusal is None
    site = inferred_site(found, Site())
    assert [site.for_exam(None, d).slice_first for d in ("2011-05-01", "2014-12-31", "2015-01-01", "2018-02-01")] == [
        1,
        1,
        0,
        0,
    ]
    assert not site.for_exam(None, None).numbering_known, "which half an exam without a date belongs to is not known"


def test_one_scanner_changes_and_the_other_does_not() -> None:
    rng = np.random.default_rng(14)
    rows = []
    for n in range(60):
        date, scanner = f"{2010 + n // 6}-06-01", (GE, MCT)[n % 2]
        rows.append(exam(rng, str(n), FEET if scanner == GE and date >= "2016" else HEAD, scanner=scanner, date=date))
    site = inferred_site(infer(rows), Site())
    assert [
        site.for_exam(s, d).slice_origin for s, d in ((GE, "2012-01-05"), (GE, "2018-01-05"), (MCT, "2018-01-05"))
    ] == [
        "head",
        "feet",
        "head",
    ]


def test_a_small_group_follows_the_others_unless_it_contradicts_them() -> None:
    rng = np.random.default_rng(15)
    rows = [exam(rng, f"g{n}", HEAD, scanner=GE, slips=0.05) for n in range(12)]
    rows += [exam(rng, "like", HEAD, scanner=SIEMENS, slips=0.0), exam(rng, "odd", FEET, scanner=MCT, slips=0.0)]
    site = inferred_site(infer(rows), Site())
    assert site.for_exam(GE, None).numbering_known
    assert site.for_exam(SIEMENS, None) == site.for_exam(GE, None)
    assert not site.for_exam(MCT, None).numbering_known


def test_one_convention_gives_one_group() -> None:
    rng = np.random.default_rng(16)
    rows = [exam(rng, str(n), FEET, scanner=(GE, MCT)[n % 2], date=f"{2010 + n % 5}-02-03") for n in range(30)]
    assert groups(infer(rows)) == {"all others": "from the feet, from 0, PET slices"}


def test_peaks_are_the_local_maxima() -> None:
    rng = np.random.default_rng(17)
    array = rng.random((9, 8, 12)).astype(np.float32)
    index, values = peaks(array, (4.0, 4.0, 3.0), 0.5, 1.0)
    assert {tuple(v) for v in index.tolist()} == set(local_maxima(array, range(12), 0.5, 2.0))
    assert np.array_equal(values, array[tuple(index.T)])
    wide, _ = peaks(array, (4.0, 4.0, 3.0), 0.5, 9.0)
    assert len(wide) < len(index)
