"""What a report says besides lesions: reference tissue, physiologic uptake, negations, harmless findings on CT.

A negation carries the words that must not occur in any lesion's site or region, so that none is untrue.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from petground.pipeline.phantom.records import PhantomExam
from petground.pipeline.phantom.report_words import House, Said, capital, chance, join_and, pick, rounded, row

__all__ = ["REGIONS", "negations", "non_avid", "physiologic", "reference", "resolved"]

REGIONS = ("neck", "chest", "abdomen", "pelvis", "musculoskeletal")
VISIBLE = 3.0  # [g/ml]; an organ below is not worth a sentence
REFERENCE = ("liver", "blood pool", "mediastinal blood pool", "marrow", "muscle")

# region -> (sentence, words that contradict it when found in a lesion's site or region); {avid} is the house's word
NEGATIONS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "neck": (
        ("No {avid} cervical lymphadenopathy.", ("cervical", "neck", "level", "supraclavicular")),
        ("No {avid} supraclavicular adenopathy.", ("supraclavicular", "cervical", "neck")),
        ("No suspicious uptake in the neck.", ("cervical", "neck", "supraclavicular", "thyroid", "parotid", "tonsil")),
        ("The thyroid shows no focal uptake.", ("thyroid",)),
        ("No abnormal uptake in the pharynx or larynx.", ("tonsil", "pharynx", "larynx", "tongue")),
    ),
    "chest": (
        ("No {avid} hilar adenopathy.", ("hilar",)),
        ("No {avid} mediastinal lymphadenopathy.", ("mediastin", "paratracheal", "subcarinal", "prevascular")),
        ("No {avid} axillary nodes.", ("axillary", "subpectoral")),
        ("No suspicious pulmonary nodules.", ("lobe", "lung", "lingul", "pulmonary")),
        ("There is no pleural or pericardial effusion.", ()),
    ),
    "abdomen": (
        ("No focal hepatic uptake above background.", ("hepatic", "liver")),
        ("The adrenal glands are unremarkable.", ("adrenal",)),
        ("No {avid} retroperitoneal adenopathy.", ("aortic", "retroperitoneal", "caval", "retrocrural")),
        ("The spleen is normal in size without focal uptake.", ("splenic", "spleen")),
        ("No {avid} mesenteric nodes.", ("mesenter",)),
        ("The pancreas shows no abnormal uptake.", ("pancrea",)),
    ),
    "pelvis": (
        ("No {avid} pelvic lymphadenopathy.", ("iliac node", "obturator", "pelvic", "presacral")),
        ("No {avid} inguinal nodes.", ("inguinal",)),
        ("No free pelvic fluid.", ()),
    ),
    "musculoskeletal": (
        ("No suspicious osseous uptake.", ("musculoskeletal",)),
        ("No {avid} osseous lesion.", ("musculoskeletal",)),
        ("No focal uptake in the proximal femora.", ("femor", "femur")),
        ("Degenerative changes of the spine.", ()),
        ("No muscular lesion.", ("muscle", "gluteal", "thigh")),
    ),
}
# words in the name of an organ -> region of the report where its normal uptake is told
ORGAN_REGION = {
    "neck": ("brain", "salivary", "parotid", "submandibular", "lacrimal", "tonsil", "thyroid", "larynx", "pituitary"),
    "chest": ("heart", "myocard", "ventric", "lung", "esophag", "breast", "thymus", "aort"),
    "pelvis": ("bladder", "urethra", "uterus", "prostate", "rectum", "testes", "ureter"),
    "musculoskeletal": ("marrow", "muscle", "spine", "bone", "vertebr"),
}
PHYSIOLOGIC = (
    "Physiologic uptake in the {organ}, {tag}{at}.",
    "Physiologic {organ} activity ({tag}{at}).",
    "The {organ} shows physiologic uptake with {tag}{at}.",
    "Expected physiologic uptake is seen in the {organ} ({tag}{at}).",
)
PHYSIOLOGIC_PLAIN = ("Physiologic uptake in the {organs}.", "Normal tracer distribution in the {organs}.")
RESOLVED = (
    "The previously seen {name} (SUVmax {old}) has resolved.",
    "A previously described {name}, with prior SUVmax of {old}, is no longer seen.",
)
NON_AVID = (
    "A {size} {name} on {at} shows no uptake above background.",
    "A {size} {name} is not {avid} ({tag}).",
    "A {size} {name} ({at}) is without abnormal uptake.",
)
# things on CT, or sites once involved, that carry no uptake: (name, words that contradict it)
BYSTANDERS = {
    "neck": (("{side} thyroid nodule", ("thyroid",)), ("{side} cervical lymph node", ("cervical", "neck", "level"))),
    "chest": (
        ("{side} upper lobe nodule", ("lobe", "lung")),
        ("{side} lower lobe nodule", ("lobe", "lung")),
        ("{side} axillary lymph node", ("axillary",)),
    ),
    "abdomen": (("{side} adrenal nodule", ("adrenal",)), ("hepatic cyst", ("hepatic", "liver"))),
    "pelvis": (("{side} inguinal lymph node", ("inguinal",)), ("{side} external iliac node", ("iliac",))),
    "musculoskeletal": (("sclerotic focus in the {side} iliac bone", ("iliac",)),),
}


def _free(exam: PhantomExam, words: Sequence[str]) -> bool:
    said = " | ".join(f"{lesion.region} {lesion.site}" for lesion in exam.lesions)
    return not any(word in said for word in words)


def _region_of(organ: str) -> str:
    return next((region for region, keys in ORGAN_REGION.items() if any(key in organ for key in keys)), "abdomen")


def reference(rng: np.random.Generator, exam: PhantomExam, house: House) -> Said | None:
    """Liver and blood pool, with or without the slice; None when the exam has no such values."""
    organs = [organ for organ in ("liver", "mediastinal blood pool", "blood pool") if organ in exam.normal]
    if not organs:
        return None
    with_slice = chance(rng, 0.2)
    parts, rows = [], []
    for organ in organs[:2]:
        value = rounded(exam.normal[organ], house.decimals)
        at = exam.normal_slices.get(organ) if with_slice else None
        parts.append((organ, house.tag(value) + (f" ({house.slice(at)})" if at else "")))
        rows.append(row(value, at, "reference"))
    lead = pick(rng, ("", "For reference, ", "Background: ", "Reference values: "))
    glue = pick(rng, ("; ", ", "))
    text = glue.join(f"{organ} {tag}" for organ, tag in parts)
    return Said(capital(f"{lead}{text}."), tuple(rows))


def physiologic(rng: np.random.Generator, exam: PhantomExam, house: House, region: str) -> list[Said]:
    """Normal organs of the region that take up the tracer: some with a value, the rest in one plain sentence."""
    organs = [
        organ
        for organ, value in exam.normal.items()
        if organ not in REFERENCE
        and value >= VISIBLE
        and _region_of(organ) == region
        and _free(exam, [organ[:4]])  # "panc" stands in "pancreatic mass"
    ]
    said, plain = [], []
    for organ in organs:
        if not chance(rng, 0.3):
            plain.append(organ)
            continue
        value = rounded(exam.normal[organ], house.decimals)
        at = exam.normal_slices.get(organ) if chance(rng, 0.4) else None
        form = pick(rng, PHYSIOLOGIC)
        text = form.format(organ=organ, tag=house.tag(value), at=f", {house.slice(at)}" if at else "")
        said.append(Said(text, (row(value, at, "physiologic"),)))
    if plain:
        said.append(Said(pick(rng, PHYSIOLOGIC_PLAIN).format(organs=join_and(_paired(plain)))))
    return said


def _paired(organs: list[str]) -> list[str]:
    """ "right kidney", "left kidney" -> "kidneys"."""
    names: list[str] = []
    for organ in organs:
        side, _, name = organ.partition(" ")
        both = side in ("left", "right") and {f"left {name}", f"right {name}"} <= set(organs)
        if (word := f"{name}s" if both else organ) not in names:
            names.append(word)
    return names


def negations(rng: np.random.Generator, exam: PhantomExam, house: House, region: str, most: int) -> list[Said]:
    """Up to `most` true statements that something is absent."""
    true = [sentence for sentence, words in NEGATIONS[region] if _free(exam, words)]
    order = rng.permutation(len(true))[:most]
    return [Said(true[int(n)].format(avid=house.avid)) for n in sorted(order)]


def _bystander(rng: np.random.Generator, exam: PhantomExam, region: str) -> str | None:
    names = [name for name, words in BYSTANDERS[region] if _free(exam, words)]
    return pick(rng, names).format(side=pick(rng, ("left", "right"))) if names else None


def non_avid(rng: np.random.Generator, exam: PhantomExam, house: House, region: str) -> Said | None:
    """Something seen on CT without uptake, at a site where no lesion lies."""
    name = _bystander(rng, exam, region)
    if name is None:
        return None
    form = pick(rng, NON_AVID)
    size = f"{int(rng.integers(4, 9))} mm"
    value, at = rounded(float(rng.uniform(0.5, 1.3)), 1), int(rng.integers(1, exam.pet.shape[2] + 1))
    text = form.format(size=size, name=name, avid=house.avid, tag=house.tag(value), at=house.slice(at))
    return Said(text.replace("A 8 mm", "An 8 mm"), (row(value, None, "negated"),) if "{tag}" in form else ())


def resolved(rng: np.random.Generator, exam: PhantomExam, house: House, region: str) -> Said | None:
    """A lesion of the earlier exam that is gone, with its earlier value."""
    name = _bystander(rng, exam, region)
    if name is None or "cyst" in name or "sclerotic" in name:
        return None
    old = rounded(float(rng.uniform(3.0, 12.0)), house.decimals)
    text = pick(rng, RESOLVED).format(name=name, old=old).replace("SUVmax", house.suv)
    return Said(text, (row(old, None, "prior"),))
