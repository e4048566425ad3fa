"""A DICOM data set without identity: PS3.15 Annex E, Basic Profile with the options that PET needs.

Options taken: Clean Descriptors, Retain Longitudinal Temporal Information With Modified Dates, Retain Patient
Characteristics, Retain Safe Private. Pixels are not touched; bytes behind the last frame go. Time spans stay to the
second, so the decay from injection to scan, and with it the SUV, is what it was.
"""

from __future__ import annotations

import importlib.metadata
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pydicom
from pydicom import config as pydicom_config
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence

from petground.pipeline.deid.actions import STANDARD, Action, action_for
from petground.pipeline.deid.dates import shift_dicom_date
from petground.pipeline.deid.identity import NOBODY, Identity, identity_spans
from petground.pipeline.deid.keys import keyed_id, keyed_uid
from petground.pipeline.deid.pixel_bytes import cut_to_frames
from petground.pipeline.deid.private import put_back, safe_private
from petground.pipeline.deid.profile import DEFAULTS, Profile
from petground.pipeline.deid.spans import apply_spans, merged
from petground.pipeline.deid.text import AGE_CAP, clean_text

__all__ = ["Removed", "Subject", "deidentify_dataset", "lenient"]

DUMMY = "REMOVED"
DUMMIES: Mapping[str, Any] = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), DUMMY),
    **dict.fromkeys(("SL", "SS", "UL", "US", "SV", "UV"), 0),
    **{"AS": "000Y", "DS": "0", "IS": "0", "FD": 0.0, "FL": 0.0, "TM": "000000", "UR": "https://removed.invalid"},
}
METHODS = (  # PS3.16 CID 7050
    ("113100", "Basic Application Confidentiality Profile"),
    ("113105", "Clean Descriptors Option"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ("113108", "Retain Patient Characteristics Option"),
    ("113111", "Retain Safe Private Option"),
)
CLEAN_STRUCTURED = ("113104", "Clean Structured Content Option")
STANDARD_SCHEMES = frozenset(("SCT", "SRT", "SNM3", "DCM", "UCUM", "FMA", "NCIt", "LN", "RADLEX", "UMLS"))
PREFIXES = {"AccessionNumber": "a", "StationName": "s", "DeviceSerialNumber": "d"}
LONGEST = {"SH": 16}  # characters, PS3.5 6.2
DEFINED_TERMS = frozenset(
    ("PT", "CT", "MR", "NM", "SEG", "RTSTRUCT", "REG", "ORIGINAL", "DERIVED", "PRIMARY", "SECONDARY", "AXIAL",
     "EMISSION", "BQML", "CNTS", "GML", "CM2ML", "BW", "BSA", "LBM", "START", "ADMIN", "NONE", "DECY", "ATTN", "SCAT",
     "DTIM", "NORM", "RAN", "STATIC", "DYNAMIC", "GATED", "WHOLE BODY", "IMAGE", "REPROJECTION", "MONOCHROME1",
     "MONOCHROME2", "M", "F")
)  # fmt: skip
"""What PET reading depends on stays even where a person is called so: PS3.3 C.7.3.1, C.7.6.1, C.8.9.1, C.8.9.4."""
DEEPEST = 40
_FIGURES = re.compile(rb"[0-9eE+. :\\\0-]*")


class Removed(NamedTuple):
    """One kind of change: attribute (keyword, or tag where there is none) and what was done."""

    name: str
    action: str


@dataclass(frozen=True, eq=False)
class Subject:
    """For whom: key, new patient id, days, what is known of the exam. remembered: texts cleaned before."""

    key: bytes
    patient: str
    days: int
    identity: Identity = NOBODY
    profile: Profile = DEFAULTS
    remembered: dict[tuple[str, str], str] = field(default_factory=dict)


@contextmanager
def lenient() -> Iterator[None]:
    """Values that break their representation's rules are read and written as they are, without a warning each."""
    settings = pydicom_config.settings
    before = settings.reading_validation_mode, settings.writing_validation_mode
    settings.reading_validation_mode = settings.writing_validation_mode = pydicom_config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        settings.reading_validation_mode, settings.writing_validation_mode = before


def deidentify_dataset(dataset: Dataset, subject: Subject) -> Counter[Removed]:
    """Changes a data set in place, file meta included; what was done, counted.

    Call within `lenient()`. An element whose value cannot be read goes: nobody knows what it holds.
    """
    done: Counter[Removed] = Counter()
    private = safe_private(dataset, subject.days)
    structured = subject.profile.structured_reports and dataset.get("ContentSequence") is not None
    _walk(dataset, subject, structured, done, 0)
    put_back(dataset, private)
    for name in private:
        done[Removed(name.label, "kept, safe private")] += 1
    dataset.preamble = b"\0" * 128  # free space that other formats hide in
    _mark(dataset, structured)
    dataset.file_meta = _meta(dataset)
    return done


def _walk(dataset: Dataset, subject: Subject, structured: bool, done: Counter[Removed], depth: int) -> None:
    coded = _coded(dataset)
    for tag in list(dataset.keys()):
        raw = dataset.get_item(tag)
        vr = _representation(tag, raw)
        action = action_for(int(tag), vr, frozenset(subject.profile.patient_characteristics), structured)
        name = keyword_for_tag(tag) or (f"private ({tag.group:04X},....)" if tag.is_private else f"({int(tag):08X})")
        if action == "keep" or (action == "search" and coded and name != "CodeMeaning"):
            continue
        if action == "check" and _figures(raw.value):
            continue
        try:
            told = _apply(dataset, tag, vr, action, name, subject, structured, done, depth)
        except Exception:  # pydicom raises what it likes on damaged values
            told = "removed, unreadable"
            dataset.pop(tag, None)
        if told:
            done[Removed(name, told)] += 1


def _apply(
    dataset: Dataset, tag: Any, vr: str, action: Action, name: str, subject: Subject, structured: bool,
    done: Counter[Removed], depth: int,
) -> str | None:  # fmt: skip
    """Does it; what is to be told of it, None when nothing changed."""
    if action == "remove":
        dataset.pop(tag, None)
        return "removed"
    if action == "pixels":
        return _cut(dataset, tag, depth)
    element = dataset[tag]
    value = element.value
    blank = value is None or (isinstance(value, str | bytes) and not str(value).strip()) or (vr != "SQ" and value == [])
    if action == "descend":
        for item in value or () if vr == "SQ" and depth < DEEPEST else ():
            _walk(item, subject, structured, done, depth + 1)
        return None
    if action == "empty":
        element.value = Sequence() if vr == "SQ" else None
        return None if blank else "emptied"
    if blank:
        return None
    if action == "check":
        if _figures(value):
            return None
        dataset.pop(tag, None)
        return "removed, no figures"
    if action == "pseudonym":
        element.value = _pseudonym(name, str(value), subject, vr)
        return "replaced by a keyed id"
    if action == "dummy":
        if vr not in DUMMIES:
            dataset.pop(tag, None)
            return "removed"
        element.value = DUMMIES[vr]
        return "replaced by a dummy"
    if action == "uid":
        new: Any = [keyed_uid(subject.key, str(uid)) for uid in _values(value)]
    elif action == "shift":
        new = [shift_dicom_date(str(part), subject.days) for part in _values(value)]
        if None in new:
            element.value = None
            return "emptied, no date"
    elif action == "age":
        new = [_capped(str(part)) for part in _values(value)]
    else:
        new = [_cleaned(str(part), action, vr, subject) for part in _values(value)]
    if new == [str(part) for part in _values(value)]:
        return None
    element.value = new if len(new) > 1 else new[0]
    return {"uid": "mapped", "shift": "shifted", "age": "capped"}.get(action, "cleaned")


def _cut(dataset: Dataset, tag: Any, depth: int) -> str | None:
    """Pixels of the image itself stay, without what lies behind them; an image within an item is an icon of it."""
    if depth:
        dataset.pop(tag, None)
        return "removed"
    return "bytes behind the image cut off" if cut_to_frames(dataset, int(tag), str(_syntax(dataset))) else None


def _representation(tag: Any, raw: Any) -> str:
    """The VR by which to decide. A known attribute written as UN is judged by what it should be."""
    vr = str(raw.VR) if raw is not None and raw.VR else ""
    if vr in ("", "UN") and dictionary_has_tag(tag):
        return str(dictionary_VR(tag))
    if vr and vr != "UN" and not tag.is_private and not dictionary_has_tag(tag):
        # not in this dictionary: a newer edition's, or nobody's; only numbers are let through
        return vr if vr in ("SQ", "US", "SS", "UL", "SL", "FL", "FD", "DA", "DT", "UI", "PN") else "UN"
    return vr or "??"


def _figures(value: Any) -> bool:
    """Whether nothing but a number, a time or an offset from UTC stands there."""
    parts = [value] if isinstance(value, bytes) else _values(value)
    return all(_FIGURES.fullmatch(p if isinstance(p, bytes) else str(p).encode("ascii", "replace")) for p in parts)


def _values(value: Any) -> list[Any]:
    if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        return [value]
    return list(value)


def _pseudonym(name: str, value: str, subject: Subject, vr: str) -> str:
    if name in ("PatientID", "PatientName"):
        return subject.patient
    return keyed_id(subject.key, value.strip(), prefix=PREFIXES[name])[: LONGEST.get(vr, 64)]


def _capped(value: str) -> str:
    plain = value.strip()
    if plain.endswith("Y") and plain[:-1].isdigit():
        return f"{min(int(plain[:-1]), AGE_CAP):03d}Y"
    return plain if plain[-1:] in "DWM" and plain[:-1].isdigit() else ""


def _cleaned(value: str, action: str, vr: str, subject: Subject) -> str:
    known = subject.remembered.get((f"{action} {vr}", value))
    if known is None:
        if action == "clean":
            known = clean_text(value, subject.identity, days=subject.days, order=subject.profile.date_order).text
        elif vr == "CS" and value.strip() in DEFINED_TERMS:
            known = value
        else:
            known = apply_spans(value, merged(identity_spans(value, subject.identity)))
        if vr == "CS" and known != value:
            known = DUMMY  # brackets are no characters of a code string (PS3.5 6.2)
        known = known[: LONGEST.get(vr, len(known))]
        subject.remembered[f"{action} {vr}", value] = known
    return known


def _coded(item: Dataset) -> bool:
    """A code item of a public scheme: its meaning is the scheme's, not a site's."""
    return str(item.get("CodingSchemeDesignator", "")).strip() in STANDARD_SCHEMES


def _mark(dataset: Dataset, structured: bool) -> None:
    """Patient identity removed, how, and that dates were modified (PS3.15 E.3)."""
    dataset.PatientIdentityRemoved = "YES"
    dataset.LongitudinalTemporalInformationModified = "MODIFIED"
    told = f"petground {importlib.metadata.version('petground')}"
    before = [str(v) for v in _values(dataset.get("DeidentificationMethod") or [])]
    dataset.DeidentificationMethod = list(dict.fromkeys([*before, told, STANDARD.split(",")[0]]))
    items = []
    for code, meaning in (*METHODS, *((CLEAN_STRUCTURED,) if structured else ())):
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "DCM", meaning
        items.append(item)
    dataset.DeidentificationMethodCodeSequence = Sequence(items)


def _meta(dataset: Dataset) -> FileMetaDataset:
    """File meta with what it must hold and nothing else: application titles name machines and sites."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = _syntax(dataset)
    return meta


def _syntax(dataset: Dataset) -> pydicom.uid.UID:
    """The transfer syntax of file meta, or how a file without it was read."""
    old = getattr(dataset, "file_meta", None) or FileMetaDataset()
    if old.get("TransferSyntaxUID") is not None:
        return old.TransferSyntaxUID
    implicit, little = dataset.original_encoding
    if implicit:
        return pydicom.uid.ImplicitVRLittleEndian
    return pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian
