"""How slices are counted, inferred from exports whose convention is known; and lesions located by value and slice.

Run by `python benchmarks/run.py numbering`; `python benchmarks/numbering.py 12` takes 12 phantom exams instead.
Exports are drawn from phantom exams: their true SUVmax to one decimal and slices as the convention prints them, a part
of them wrong. A verdict is right, refused, or wrong; hostile exports have to be refused.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from petground.labeling import evidence
from petground.labeling.evidence import CONVENTIONS, sightings
from petground.labeling.finding import Finding, Label
from petground.labeling.infer_numbering import ExamEvidence
from petground.labeling.label import label_exam
from petground.labeling.maxima import peaks
from petground.labeling.numbering import slice_number
from petground.labeling.numbering_groups import Inference, infer, inferred_site
from petground.labeling.organs import class_ids
from petground.labeling.site import Site
from petground.labeling.volume import Volume

if TYPE_CHECKING:
    from petground.pipeline.phantom.records import PhantomExam

EXAMS, SEED, DRAWS = 40, 4711, 40
SLIPS = 0.1  # part of the reported slices that are any other
SIZES = (2, 3, 5, 10, 20)  # exams in an export
CLASSES = {  # tissue of the phantom -> class of TotalSegmentator
    **dict.fromkeys(("heart_chambers", "myocardium"), "heart"),
    **dict.fromkeys(("kidney_cortex", "kidney_pelvis"), "kidney_right"),
    **dict.fromkeys(("grey_matter", "white_matter"), "brain"),
    **dict.fromkeys(("stomach_wall", "stomach_lumen"), "stomach"),
    **{name: name for name in ("esophagus", "liver", "gallbladder", "spleen", "pancreas", "duodenum", "small_bowel")},
    **{"adrenal": "adrenal_gland_right", "bladder": "urinary_bladder", "colon": "colon", "prostate": "prostate"},
    **{"thyroid": "thyroid_gland", "skull": "skull"},
}
PAIRED = (("kidney_right", "kidney_left"), ("adrenal_gland_right", "adrenal_gland_left"))
SCANNERS = ("MAKER A / One / S1", "MAKER A / Two / S2", "MAKER B / Three / S3")


Lesion = tuple[float, tuple[int, int, int], "str | None", str, float]  # SUVmax, voxel, side, site, diameter [mm]


@dataclass(frozen=True, eq=False)
class Exam:
    """A phantom without what is not needed. organs: its organs as TotalSegmentator would name them, where it does."""

    name: str
    pet: Volume
    ct: Volume
    tracer: str
    organs: Volume
    lesions: list[Lesion]


def measure(exams: int = EXAMS) -> dict[str, Any]:
    evidence.peaks = _peaks_once  # each exam serves hundreds of exports
    made = [exam for index in range(exams) if (exam := _phantom(index)).lesions]
    rng = np.random.default_rng(SEED)
    return {
        "phantoms": {"exams": exams, "with_lesions": len(made), "seed": SEED, "slips": SLIPS, "draws": DRAWS},
        "one_convention": {f"{n} exams": _one_convention(made, rng, n) for n in SIZES},
        "by_scanner_or_year": {f"{n} exams each": _mixed(made, rng, n) for n in (5, 10)},
        "hostile": {kind: _hostile(made, rng, kind) for kind in ("random slices", "another exam's report")},
        "located": _located(made),
    }


_KNOWN: dict[int, tuple[Any, Any]] = {}


def _peaks_once(array: Any, spacing_ijk_mm: Any, low: float, radius_mm: float) -> tuple[Any, Any]:
    if id(array) not in _KNOWN:
        _KNOWN[id(array)] = peaks(array, spacing_ijk_mm, 2.0, radius_mm)
    index, values = _KNOWN[id(array)]
    return index[values >= low], values[values >= low]


def _phantom(index: int) -> Exam:
    from petground.pipeline.phantom.exam import make_exam

    exam = make_exam(SEED, index)
    lesions = [
        (le.suv_max, le.voxel_ijk, le.laterality, le.site, le.diameter_mm) for le in exam.lesions if le.suv_max >= 2.5
    ]
    return Exam(exam.exam_id, exam.pet, exam.ct, exam.patient.tracer, _organs(exam, index), lesions)


def _organs(exam: PhantomExam, index: int) -> Volume:
    """The phantom's tissue before it is blurred, made again from the same numbers, as classes on the PET grid."""
    from petground.pipeline.phantom import exam as phantom

    number = phantom.patient_number(index)
    person = np.random.default_rng(np.random.SeedSequence([SEED, 1, number]))
    rng = np.random.default_rng(np.random.SeedSequence([SEED, 2, index]))
    patient = phantom.make_patient(person, exam.patient.patient_id, later=index != number)
    body = phantom.make_body(person, patient)
    shapes = phantom.make_shapes(person, body)
    phantom.make_scanner(rng, patient.weight_kg, patient.tracer)
    table = phantom.suv_table(np.random.default_rng(0), patient.tracer)
    canvas = phantom.make_canvas(body, exam.pet.shape[::-1], exam.pet.affine, table, 0.0)
    phantom.paint_body(canvas, body, shapes)
    ids = {name: number for number, name in class_ids().items()}
    lookup = np.array([ids.get(CLASSES.get(name, ""), 0) for name in canvas.names], dtype=np.uint8)
    classes = lookup[canvas.organ].transpose(2, 1, 0)
    x_mm = exam.pet.to_world_mm(np.c_[np.arange(classes.shape[0]), np.zeros((classes.shape[0], 2))])[:, 0]
    left = (x_mm < body.shift_xy[0])[:, None, None]
    for right_class, left_class in PAIRED:
        classes[(classes == ids[right_class]) & left] = ids[left_class]
    return exam.pet.like(classes, "label")


def _evidence(exam: Exam, site: Site, rng: np.random.Generator, **who: Any) -> ExamEvidence:
    findings = []
    for suv, voxel, _, _, _ in exam.lesions:
        k = int(rng.integers(exam.pet.shape[2])) if rng.random() < who.get("slips", SLIPS) else voxel[2]
        findings.append(_told(suv, slice_number(k, exam.pet, site, exam.ct)))
    seen = sightings(exam.pet, who.get("told", findings), Site(), ct=exam.ct)
    return ExamEvidence(exam.name, tuple(seen), who.get("scanner"), who.get("date"))


def _one_convention(made: list[Exam], rng: np.random.Generator, size: int) -> dict[str, float]:
    fates: Counter[str] = Counter()
    conventions = [c for c in CONVENTIONS if not c.by_instance_number]
    for draw in range(DRAWS):
        convention = conventions[draw % len(conventions)]
        site = Site(**convention.settings)
        found = infer([_evidence(made[n], site, rng) for n in rng.permutation(len(made))[:size]])
        fates[_fate(found, lambda s, site=site: _same(s.for_exam(None, None), site))] += 1
    return _shares(fates)


def _mixed(made: list[Exam], rng: np.random.Generator, size: int) -> dict[str, Any]:
    """Three scanners, of which one counts otherwise; or a change at a New Year, by one slice only."""
    scanner, year, labelled = Counter[str](), Counter[str](), []
    head, feet, zero = Site(), Site(slice_origin="feet", slice_first=0), Site(slice_first=0)
    for _ in range(DRAWS):
        truth = dict(zip(SCANNERS, rng.permutation(np.array([head, head, feet], dtype=object)), strict=True))
        rows = [_evidence(_any(made, rng), truth[name], rng, scanner=name) for name in SCANNERS for _ in range(size)]
        found = infer(rows)
        right = lambda s, truth=truth: all(_known_right(s.for_exam(n, None), t) for n, t in truth.items())  # noqa: E731
        scanner[_fate(found, right)] += 1
        if found.refusal is None:
            site = inferred_site(found, Site())
            labelled.append(np.mean([site.for_exam(name, None).numbering_known for name in SCANNERS]))
        rows = [
            _evidence(_any(made, rng), head if y < 2015 else zero, rng, date=f"{y}-{m:02d}-10")
            for y in range(2013, 2017)
            for m in rng.integers(1, 13, (size + 1) // 2)
        ]
        right = lambda s: all(  # noqa: E731
            _known_right(s.for_exam(None, d), t) for d, t in (("2013-01-02", head), ("2016-12-01", zero))
        )
        year[_fate(infer(rows), right)] += 1
    return {
        "scanner": _shares(scanner),
        "scanners_labelled": round(float(np.mean(labelled)), 3) if labelled else None,
        "year": _shares(year),
    }


def _hostile(made: list[Exam], rng: np.random.Generator, kind: str) -> dict[str, float]:
    fates: Counter[str] = Counter()
    for _ in range(DRAWS):
        order = rng.permutation(len(made))
        rows = []
        for n, other in zip(order, np.roll(order, 1), strict=True):
            if kind == "random slices":
                rows.append(_evidence(made[n], Site(), rng, slips=1.0, scanner=SCANNERS[n % 3]))
            else:
                stranger = made[other]
                told = [_told(suv, stranger.pet.shape[2] - voxel[2]) for suv, voxel, *_ in stranger.lesions]
                rows.append(_evidence(made[n], Site(), rng, told=told, scanner=SCANNERS[n % 3]))
        fates[_fate(infer(rows), lambda site: False)] += 1
    return _shares(fates)


@dataclass(frozen=True)
class Telling:
    """What reports say of each lesion beside value and slice, how exactly, and whether organ maps are given."""

    side_and_site: bool = True
    size: bool = False
    decimals: int = 1
    off: int = 0
    organs: bool = False


TELLINGS = {
    "one decimal": Telling(),
    "one decimal, neither side nor site": Telling(side_and_site=False),
    "one decimal, slice up to 2 off": Telling(off=2),
    "no decimal": Telling(decimals=0),
    "no decimal, size told": Telling(decimals=0, size=True),
    "no decimal, organ maps": Telling(decimals=0, organs=True),
    "no decimal, organ maps, size told": Telling(decimals=0, organs=True, size=True),
    "no decimal, slice up to 2 off": Telling(decimals=0, off=2),
    "no decimal, slice up to 2 off, organ maps, size told": Telling(decimals=0, off=2, organs=True, size=True),
}


def _located(made: list[Exam]) -> dict[str, Any]:
    """Of the lesions: the part that gets a label, and that whose label holds its hottest voxel; why others do not."""
    figures = {}
    for name, telling in TELLINGS.items():
        rng = np.random.default_rng(SEED)
        rows: list[tuple[str | None, bool]] = []
        for exam in made:
            findings = [_said(exam, lesion, telling, rng) for lesion in exam.lesions]
            organs = exam.organs if telling.organs else None
            site = Site(slice_tolerance=telling.off)
            fates = label_exam(exam.pet, findings, site=site, ct=exam.ct, organs=organs, tracer=exam.tracer)
            for lesion, fate in zip(exam.lesions, fates, strict=True):
                rows.append((None, bool(fate.mask[lesion[1]])) if isinstance(fate, Label) else (fate.reason, False))
        labels = [right for reason, right in rows if reason is None]
        figures[name] = {
            "lesions": len(rows),
            "labelled": round(len(labels) / len(rows), 3),
            "located_of_labels": round(float(np.mean(labels)), 3),
            "located_of_lesions": round(float(np.sum(labels)) / len(rows), 3),
            "reasons": dict(Counter(reason for reason, _ in rows if reason).most_common()),
        }
    return figures


def _said(exam: Exam, lesion: Lesion, telling: Telling, rng: np.random.Generator) -> Finding:
    suv, voxel, side, site, diameter = lesion
    shift = int(rng.integers(-telling.off, telling.off + 1))
    number = int(np.clip(exam.pet.shape[2] - voxel[2] + shift, 1, exam.pet.shape[2]))
    about: dict[str, Any] = {"suv_decimals": telling.decimals, "size_mm": diameter if telling.size else None}
    if telling.side_and_site:
        about |= {"laterality": side, "site": site}
    return _told(suv, number, **about)


def _fate(found: Inference, right: Callable[[Site], bool]) -> str:
    if found.refusal is not None:
        return "refused"
    return "right" if right(inferred_site(found, Site())) else "wrong"


def _known_right(found: Site, truth: Site) -> bool:
    return not found.numbering_known or _same(found, truth)


def _same(found: Site, truth: Site) -> bool:
    names = ("slice_origin", "slice_first", "slice_grid", "slice_by_instance_number")
    return all(getattr(found, name) == getattr(truth, name) for name in names)


def _shares(fates: Counter[str]) -> dict[str, float]:
    return {fate: round(fates[fate] / sum(fates.values()), 3) for fate in ("right", "refused", "wrong")}


def _any(made: Iterable[Exam], rng: np.random.Generator) -> Exam:
    made = list(made)
    return made[int(rng.integers(len(made)))]


def _told(suv: float, number: int, **options: Any) -> Finding:
    values = {"laterality": None, "site": None, "status": "positive", "reason": None} | options
    decimals = values.get("suv_decimals", 1)
    return Finding(suv=round(suv, decimals), slice=number, span=(0, 0), **values)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else EXAMS), indent=1) + "\n")
