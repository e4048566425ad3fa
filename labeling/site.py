"""What differs from one hospital to the next: how slices are counted, which values count."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from petground.labeling.errors import ConfigError

__all__ = ["Site", "site_from_mapping"]


@dataclass(frozen=True)
class Site:
    """A site's conventions. The defaults are those of the published method (arXiv 2502.00528).

    name: shown in tables and pages.
    slice_origin: the end of the body at which counting starts.
    slice_first: number of the first slice, 0 or 1.
    slice_grid: whether reported indices count PET or CT slices.
    slice_by_instance_number: reported index is DICOM's InstanceNumber; the three above are then not used.
    slice_tolerance: how many slices a reported index may be off.
    suv_minimum: reported values below are not labelled [g/ml].
    suv_tolerance: how far the label's maximum may be from the printed value's rounding interval [g/ml].
    midline_margin_mm: laterality is only contradicted further than this from the body's midline.
    max_volume_ml: a label above is implausible.
    """

    name: str = "default"
    slice_origin: Literal["head", "feet"] = "head"
    slice_first: int = 1
    slice_grid: Literal["pet", "ct"] = "pet"
    slice_by_instance_number: bool = False
    slice_tolerance: int = 0
    suv_minimum: float = 2.5
    suv_tolerance: float = 0.05
    midline_margin_mm: float = 40.0
    max_volume_ml: float = 3000.0

    def __post_init__(self) -> None:
        if self.slice_first not in (0, 1):
            raise ConfigError(f"slice_first is {self.slice_first}", fix="slices are counted from 0 or from 1")
        for name in ("slice_tolerance", "suv_minimum", "suv_tolerance", "midline_margin_mm", "max_volume_ml"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}", fix="it must not be negative")


def site_from_mapping(values: Mapping[str, Any] | None) -> Site:
    """A Site from the mapping of a YAML file. Raises ConfigError for unknown keys, types and words."""
    values = dict(values or {})
    known = {f.name for f in fields(Site)}
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=2)
            raise ConfigError(
                f"unknown site setting '{key}'",
                fix=f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(sorted(known))}",
            )
    hints = get_type_hints(Site)
    for key, value in values.items():
        values[key] = _checked(key, value, hints[key])
    return Site(**values)


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
