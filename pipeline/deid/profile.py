"""What a site may turn about de-identification, read from YAML; the defaults are the strict ones."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from petground.labeling.errors import ConfigError
from petground.pipeline.settings_file import read_settings

__all__ = ["DEFAULTS", "Profile", "read_profile"]


@dataclass(frozen=True)
class Profile:
    """The site's settings.

    date_order: what 03/04/2021 means in this site's reports where a report does not tell: mdy or dmy.
    names, places, ids: known to be in reports of this site whoever the patient is: staff, hospitals, study numbers.
    name_columns, id_columns: columns of the report export that hold names or ids, beside those told by their heading.
    patient_characteristics: attributes kept under the option Retain Patient Characteristics; ages over 89 become 90.
    structured_reports: keep DICOM SR, its content cleaned as text is; otherwise they are left out.
    segmentations: keep DICOM SEG, RTSTRUCT and real world value maps.
    look_for_text: search derived images for text in the pixels.
    """

    date_order: Literal["mdy", "dmy"] = "mdy"
    names: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    name_columns: tuple[str, ...] = ()
    id_columns: tuple[str, ...] = ()
    patient_characteristics: tuple[str, ...] = ("PatientAge", "PatientSex", "PatientSize", "PatientWeight")
    structured_reports: bool = False
    segmentations: bool = True
    look_for_text: bool = True

    def mapping(self) -> dict[str, Any]:
        """As plain values, for keys of results."""
        return asdict(self)


DEFAULTS = Profile()


def read_profile(path: Path | None) -> Profile:
    """The profile in a YAML file, the defaults without one. Raises ConfigError naming what is not understood."""
    if path is None:
        return DEFAULTS
    values = read_settings(path, what="profile", fix="see docs/deidentification.md for its settings")
    known = {field.name: field.default for field in fields(Profile)}
    settings: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise ConfigError(f"{path.name}: unknown setting {name}", fix=hint)
        settings[name] = _checked(path.name, name, value, known[name])
    return Profile(**settings)


def _checked(file: str, name: str, value: Any, default: Any) -> Any:
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ConfigError(f"{file}: {name} is not true or false")
        return value
    if isinstance(default, tuple):
        if not isinstance(value, list) or not all(isinstance(v, str | int) for v in value):
            raise ConfigError(f"{file}: {name} is not a list of words", fix=f"{name}: [first, second]")
        return tuple(str(v) for v in value)
    if value not in ("mdy", "dmy"):
        raise ConfigError(f"{file}: {name} must be mdy or dmy")
    return value
