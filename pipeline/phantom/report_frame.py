"""What stands around the findings: history, technique, comparison and impression."""

from __future__ import annotations

import datetime

import numpy as np

from petground.pipeline.phantom.records import Lesion, PhantomExam
from petground.pipeline.phantom.report_lesions import Telling
from petground.pipeline.phantom.report_sites import core, qualifier
from petground.pipeline.phantom.report_words import (
    House,
    Said,
    avid,
    capital,
    chance,
    date_text,
    pick,
    rounded,
    row,
)

__all__ = ["comparison", "history", "impression", "technique"]

DISEASES = {
    "FDG": ("non-small cell lung cancer", "diffuse large B-cell lymphoma", "melanoma", "colorectal carcinoma",
            "squamous cell carcinoma of the head and neck", "esophageal adenocarcinoma", "soft tissue sarcoma"),
    "DOTATATE": ("well-differentiated neuroendocrine tumor of the small bowel", "pancreatic neuroendocrine tumor"),
    "DCFPyL": ("prostate cancer",),
    "fluciclovine": ("prostate cancer",),
}  # fmt: skip
TRACERS = {
    "FDG": ("F-18 FDG", "18F-FDG", "F-18 fluorodeoxyglucose"),
    "DOTATATE": ("Ga-68 DOTATATE", "68Ga-DOTATATE"),
    "DCFPyL": ("F-18 DCFPyL", "F-18 piflufolastat"),
    "fluciclovine": ("F-18 fluciclovine", "fluciclovine F-18"),
}
MBQ_PER_MCI = 37.0  # exact: 1 Ci = 3.7e10 Bq


def history(rng: np.random.Generator, exam: PhantomExam, *, prior: bool) -> str:
    patient = exam.patient
    who = {"F": "woman", "M": "man"}.get(patient.sex, "patient")
    disease = pick(rng, DISEASES.get(patient.tracer, ("malignancy",)))
    if patient.sex == "F" and patient.tracer == "FDG" and chance(rng, 0.35):
        disease = "breast cancer"
    why = pick(rng, ("Restaging.", "Response assessment after therapy.", "Surveillance.", "Suspected recurrence."))
    if not prior:
        why = pick(rng, ("Initial staging.", "Staging before treatment.", "Evaluate extent of disease."))
    forms = (
        "{age}-year-old {who} with {disease}. {why}",
        "{Disease}. {why}",
        "{Disease}, {age}-year-old {who}. {why}",
        "History of {disease}. {why}",
    )
    return pick(rng, forms).format(age=patient.age, who=who, disease=disease, Disease=capital(disease), why=why)


def technique(rng: np.random.Generator, exam: PhantomExam, house: House) -> Said:
    patient = exam.patient
    dose = patient.dose_mbq / (MBQ_PER_MCI if house.activity == "mCi" else 1.0)
    amount = f"{rounded(dose, 1 if house.activity == 'mCi' else 0)} {house.activity}"
    tracer = pick(rng, TRACERS.get(patient.tracer, (patient.tracer,)))
    minutes = rounded(patient.uptake_minutes, 0)
    lead = pick(
        rng,
        (
            f"{amount} of {tracer} was injected intravenously. Imaging began {minutes} minutes later.",
            f"Following intravenous injection of {amount} {tracer} and an uptake period of {minutes} minutes, "
            "PET and low-dose CT were acquired.",
            f"{tracer} {amount} IV. Uptake time {minutes} min.",
        ),
    )
    parts = [lead]
    if patient.tracer == "FDG":
        glucose = int(rng.integers(78, 151))
        parts.append(
            pick(rng, ("Blood glucose {g} mg/dL.", "Serum glucose was {g} mg/dL at injection.")).format(g=glucose)
        )
    if chance(rng, 0.5):
        parts.append(f"Weight {rounded(patient.weight_kg, 0)} kg, height {rounded(patient.height_cm, 0)} cm.")
    parts.append(pick(rng, ("Scan range from head to mid thigh.", "Field of view: vertex to proximal thighs.",
                            "CT without contrast was used for attenuation correction and localization.")))  # fmt: skip
    rows: tuple[dict[str, object], ...] = ()
    draw = rng.random()
    if draw < 0.1:
        parts.append("SUV is normalized to body weight.")
    elif draw < 0.2:
        parts.append("Slice numbers refer to the axial PET series.")
    elif draw < 0.26:
        parts.append("An SUV threshold of 2.5 was used for reporting.")
        rows = (row("2.5", None, "threshold"),)
    return Said(" ".join(parts), rows)


def comparison(rng: np.random.Generator, exam: PhantomExam, house: House, *, prior: bool) -> str:
    try:
        today = datetime.date.fromisoformat(exam.patient.study_date)
    except ValueError:
        today = datetime.date(2021, 6, 1)
    before = date_text(house, today - datetime.timedelta(days=int(rng.integers(60, 420))))
    if house.style == "plain":  # no heading says what the date is
        forms = ("Comparison is made with the PET/CT of {d}.", "The PET/CT of {d} is available for comparison.")
        without = ("No prior PET/CT is available for comparison.", "There is no earlier PET/CT.")
        return pick(rng, forms if prior else without).format(d=before)
    if prior:
        return pick(rng, ("PET/CT {d}.", "PET/CT dated {d}.", "Prior PET/CT from {d}.")).format(d=before)
    return pick(rng, ("None.", "None available.", "CT chest {d}.", "No prior PET/CT.")).format(d=before)


def _conclusion(
    rng: np.random.Generator, telling: Telling, lesion: Lesion, printed: tuple[str, int | None] | None
) -> Said:
    """One line of the impression, with or without the value told in the findings."""
    house = telling.house
    which = qualifier(lesion, telling.told)
    name = " ".join(f"{which} {core(rng, lesion, plain=True)}".split())
    words = f"{avid(rng, house, lesion.suv_max)} {name}"
    think = telling.opinions[lesion.lesion_id]
    if printed is None or printed[1] is None or not chance(rng, 0.45):
        form = pick(rng, ("{words}, {think}", "{words}; {think}", "{words} is {think}"))
        if form.endswith("is {think}") and think.startswith(("attention", "favored")):
            form = "{words}, {think}"
        return Said(capital(form.format(words=words, think=think)) + ".", told=())
    value, number = printed
    with_slice = chance(rng, 0.4)
    where = f"{house.tag(value)}, {house.slice(printed[1])}" if with_slice else house.tag(value)
    text = capital(pick(rng, ("{words} ({where}), {think}", "{words}, {where}, {think}"))
                   .format(words=words, where=where, think=think))  # fmt: skip
    return Said(f"{text}.", (row(value, number if with_slice else None, "repeat"),))


def impression(rng: np.random.Generator, telling: Telling, printed: dict[str, tuple[str, int | None]]) -> list[Said]:
    """The conclusion: the hottest told lesions first, then what was not found."""
    told = sorted(telling.told, key=lambda lesion: -lesion.suv_max)[: int(rng.integers(2, 5))]
    lines = [_conclusion(rng, telling, lesion, printed.get(lesion.lesion_id)) for lesion in told]
    if not told:
        lines.append(Said(f"No evidence of {telling.house.avid} disease."))
    elif len(told) == len(telling.exam.lesions):
        lines.append(Said(pick(rng, (f"No other {telling.house.avid} disease.", "No additional suspicious uptake."))))
    if telling.prior and chance(rng, 0.3):
        lines.append(
            Said(pick(rng, ("Correlation with tumor markers is suggested.", "Follow-up PET/CT is recommended.")))
        )
    return lines
