"""What differs from one hospital to the next: how slices are counted, which values count."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from petground.labeling.errors import ConfigError

__all__ = ["Site", "SiteGroup", "scanner_matches", "site_from_mapping", "site_to_mapping"]

WHOLE_SITE = frozenset({"half_life_from_code", "patient_ids"})
"""Settings that are used before it is known to which group an exam belongs, or for the export as a whole."""
_DAY = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])")


@dataclass(frozen=True)
class SiteGroup:
    """Exams of the site that are counted otherwise.

    scanner: None for any; a name as exams.parquet has it ("maker / model / station"), or its beginning with * behind
        it; "" for exams whose scanner is not known. since, until: ISO dates, since <= study date < until.
    changes: settings of Site that hold for these exams.
    """

    scanner: str | None = None
    since: str | None = None
    until: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)

    def holds(self, scanner: str | None, date: str | None) -> bool:
        """Whether an exam belongs here. One without a date belongs to no group that asks for one."""
        if self.scanner is not None and not scanner_matches(self.scanner, scanner):
            return False
        if (self.since or self.until) and not date:
            return False
        return (not self.since or str(date) >= self.since) and (not self.until or str(date) < self.until)


def scanner_matches(pattern: str, scanner: str | None) -> bool:
    """Whether a scanner's name is the pattern, or begins with it where it ends in *; capitals do not count."""
    pattern, name = pattern.casefold(), (scanner or "").casefold()
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


@dataclass(frozen=True)
class Site:
    """A site's conventions. The defaults are those of the published method (arXiv 2502.00528).

    name: shown in tables and pages.
    slice_origin: the end of the body at which counting starts.
    slice_first: number of the first slice, 0 or 1.
    slice_grid: whether reported indices count PET or CT slices.
    slice_by_instance_number: reported index is DICOM's InstanceNumber, of the series of `slice_grid`; where counting
        starts is then not used.
    slice_by_series_number: where the report names a series ("series 3, image 104") that is the PET's or the CT's
        SeriesNumber, it decides over `slice_grid`.
    numbering_known: False where it is not known how slices are counted: nothing is labelled then.
    slice_tolerance: how many slices a maximum may lie beside the reported slice. One whose lesion, at half its value,
        reaches the reported slice is taken up to 60 mm away whatever this says (`match.REACH_MM`), scored lower.
    suv_minimum: reported values below are not labelled [g/ml].
    suv_tolerance: how far the label's maximum may be from the printed value's rounding interval [g/ml].
    midline_margin_mm: laterality is only contradicted further than this from the body's midline.
    max_volume_ml, min_volume_ml: a label above or below is implausible (0.03 ml: a sphere of 4 mm).
    contour: outlining rule: chosen by lesion (auto), or one of `rules.RULES` for all.
    contour_fraction: part of the maximum, for `fraction` (0.41 to 0.5: EANM guideline).
    contour_suv: SUV, for `absolute` (4 as in the lymphoma literature, 2.5 in older work) [g/ml].
    half_life_from_code: whether a RadionuclideHalfLife that a PET header lacks is looked up from its
        RadionuclideCodeSequence; for all exams alike, groups or not.
    check_study_date: whether an exam is refused whose report has another study_date than the images.
    study_date_tolerance_days: how many days the two may differ.
    patient_ids: how the export's patient_id and DICOM's PatientID go together; for all exams alike. check: equal, or
        one to one where the export uses ids of its own; pseudonyms: one to one; export, dicom: that one is believed.
    groups: exams by scanner or time for which other settings hold; the first that fits an exam is its own.
    """

    name: str = "default"
    slice_origin: Literal["head", "feet"] = "head"
    slice_first: int = 1
    slice_grid: Literal["pet", "ct"] = "pet"
    slice_by_instance_number: bool = False
    slice_by_series_number: bool = False
    numbering_known: bool = True
    slice_tolerance: int = 0
    suv_minimum: float = 2.5
    suv_tolerance: float = 0.05
    midline_margin_mm: float = 40.0
    max_volume_ml: float = 3000.0
    min_volume_ml: float = 0.03
    contour: Literal["auto", "iterative", "fraction", "absolute", "gradient", "random_walker", "watershed"] = "auto"
    contour_fraction: float = 0.41
    contour_suv: float = 4.0
    half_life_from_code: bool = False
    check_study_date: bool = True
    study_date_tolerance_days: int = 1
    patient_ids: Literal["check", "pseudonyms", "export", "dicom"] = "check"
    groups: tuple[SiteGroup, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.contour_fraction < 1 or not 0 < self.contour_suv < math.inf:
            raise ConfigError(
                "contour_fraction is not between 0 and 1, or contour_suv not positive", fix="0.41 and 4.0"
            )
        if self.slice_first not in (0, 1):
            raise ConfigError(f"slice_first is {self.slice_first}", fix="slices are counted from 0 or from 1")
        for name in (
            "slice_tolerance",
            "suv_minimum",
            "suv_tolerance",
            "midline_margin_mm",
            "max_volume_ml",
            "min_volume_ml",
            "study_date_tolerance_days",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}", fix="it must be a number and not negative")
        if self.min_volume_ml > self.max_volume_ml:
            raise ConfigError("min_volume_ml is above max_volume_ml", fix="no label could lie between them")

    def for_exam(self, scanner: str | None, date: str | None) -> Site:
        """The settings that hold for one exam, without groups. date: ISO."""
        own = next((group.changes for group in self.groups if group.holds(scanner, date)), {})
        return replace(self, groups=(), **own)


def site_from_mapping(values: Mapping[str, Any] | None) -> Site:
    """A Site from the mapping of a YAML file. Raises ConfigError for unknown keys, types and words, and for settings of
    the whole site in a group.

    `groups` is a list of mappings with `scanner`, `from`, `until` (ISO dates) and any other setting of a site.
    """
    values = dict(values or {})
    groups = values.pop("groups", None) or []
    if not isinstance(groups, list | tuple) or not all(isinstance(group, Mapping) for group in groups):
        raise ConfigError("groups is not a list of settings", fix="write each group as '- scanner: ...'")
    settings = _settings(values, {f.name for f in fields(Site)})
    return Site(**settings, groups=tuple(_group(group, settings) for group in groups))


def site_to_mapping(site: Site) -> dict[str, Any]:
    """The mapping that `site_from_mapping` reads; without groups the key is left out."""
    values = asdict(site)
    del values["groups"]
    groups = []
    for group in site.groups:
        where = {"scanner": group.scanner, "from": group.since, "until": group.until}
        groups.append({name: value for name, value in where.items() if value is not None} | dict(group.changes))
    return values | ({"groups": groups} if groups else {})


def _group(values: Mapping[str, Any], base: Mapping[str, Any]) -> SiteGroup:
    rest = dict(values)
    scanner, since, until = rest.pop("scanner", None), rest.pop("from", None), rest.pop("until", None)
    if scanner is not None and not isinstance(scanner, str):
        raise ConfigError(f"scanner is {scanner!r}", fix="give the name in quotes")
    days = {"from": since, "until": until}
    for key, day in days.items():  # YAML makes a date of 2015-07-01
        days[key] = day = None if day is None else str(day)
        if day is not None and not _DAY.fullmatch(day):
            raise ConfigError(f"{key} is '{day}'", fix="give a day as 2015-07-01")
    if days["from"] and days["until"] and days["from"] >= days["until"]:
        raise ConfigError(f"a group from {days['from']} until {days['until']} holds no exam", fix="swap the two")
    if not rest:
        raise ConfigError("a group changes no setting", fix="add one, e.g. slice_origin: feet")
    for key in sorted(WHOLE_SITE.intersection(rest)):
        raise ConfigError(f"'{key}' stands in a group", fix="it holds for all exams of the site: write it above groups")
    known = {f.name for f in fields(Site)} - WHOLE_SITE - {"groups"}
    changes = _settings(rest, known | {"scanner", "from", "until"}, " of a group")
    Site(**{**base, **changes})  # values out of range are told now, not at the first exam
    return SiteGroup(scanner, days["from"], days["until"], changes)


def _settings(values: Mapping[str, Any], known: Collection[str], where: str = "") -> dict[str, Any]:
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=2)
            raise ConfigError(
                f"unknown site setting '{key}'{where}",
                fix=f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(sorted(known))}",
            )
    hints = get_type_hints(Site)
    return {key: _checked(key, value, hints[key]) for key, value in values.items()}


def _checked(key: str, value: Any, hint: Any) -> Any:
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ConfigError(f"{key} is '{value}'", fix=f"one of {', '.join(map(str, get_args(hint)))}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{key} is {value!r}", fix=f"expected {hint.__name__}")
    return value
