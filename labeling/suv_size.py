"""Body size in SUV: what a size correction puts in the place of body weight (DICOM PS3.16, codes 126401 to 126406)."""

from __future__ import annotations

import math

from petground.labeling.errors import SuvError
from petground.labeling.suv_header import PetHeader, SuvFallbacks, named

__all__ = ["from_suv", "size_mass_kg", "weight_kg"]

WEIGHT_RANGE_KG = (0.3, 500.0)
HEIGHT_RANGE_M = (0.2, 2.6)
_NAMES = {
    "LBM": "LBM by James, coefficient 120",
    "LBMJAMES128": "LBM by James, coefficient 128",
    "LBMJANMA": "LBM by Janmahasatian",
}


def from_suv(header: PetHeader, fallbacks: SuvFallbacks) -> tuple[float, str]:
    """SUVbw per stored unit, and the rule, of GML and CM2ML, which are SUV already.

    An absent SUVType means body weight with GML, body surface with CM2ML (PS3.3 C.8.9.1.1.3). Raises SuvError.
    """
    kind = header.suv_type or ("BSA" if header.units == "CM2ML" else "BW")
    if (kind == "BSA") != (header.units == "CM2ML"):
        raise SuvError(
            f"{named('Units')} is '{header.units}' but {named('SUVType')} is '{kind}'",
            fix="the series contradicts itself; export it in Bq/ml",
        )
    if kind == "BW":
        return 1.0, f"GML/{header.decay_correction or 'unstated'}"
    weight, note = weight_kg(header, fallbacks)
    height = header.height_m
    if height is None or not HEIGHT_RANGE_M[0] < height < HEIGHT_RANGE_M[1]:
        raise SuvError(
            f"{named('PatientSize')} is {header.said('PatientSize', height)} and the values are SUV by {kind}",
            fix="state the height in metres",
        )
    mass = size_mass_kg(kind, weight, height, header.sex)
    if mass <= 0:
        raise SuvError(
            f"{kind} of {named('PatientWeight')} {weight} kg, {named('PatientSize')} {height} m is {mass:.1f} kg",
            fix="correct weight and height",
        )
    sexes = " (mean of male and female, PatientSex is O)" if header.sex == "O" and kind != "BSA" else ""
    return weight / mass, f"{header.units}/{_NAMES.get(kind, kind)}{sexes}{note}"


def weight_kg(header: PetHeader, fallbacks: SuvFallbacks) -> tuple[float, str]:
    """The patient's weight and a note where it is not the header's. Raises SuvError without a believable one."""
    weight, note = header.weight_kg, ""
    if not _is_weight(weight) and fallbacks.weight_kg is not None:
        weight, note = fallbacks.weight_kg, " (weight from the site's table)"
    if weight is None or not _is_weight(weight):
        raise SuvError(
            f"{named('PatientWeight')} is {header.said('PatientWeight', weight)}",
            fix="it must be the patient's weight in kilograms; `--weights` takes a table of them",
        )
    return weight, note


def size_mass_kg(kind: str, weight_kg: float, height_m: float, sex: str | None) -> float:
    """The "mass" that a size correction puts in the place of body weight, so SUVbw = SUVkind * weight / mass.

    kind: LBM (James, 120 in the male formula), LBMJAMES128 (128), LBMJANMA (Janmahasatian 2005), IBW, or BSA
    (DuBois 1916; then the result is tenths of a square metre, cm2/ml and g/ml being 1e4 and 1e3 to m2 and kg).
    For sex "O", other, the mean of the male and the female mass (IBSI manual on SUV). Raises SuvError.
    """
    height_cm = 100.0 * height_m
    if kind == "BSA":
        return 10.0 * 0.007184 * math.pow(weight_kg, 0.425) * math.pow(height_cm, 0.725)
    if kind not in ("LBM", "LBMJAMES128", "LBMJANMA", "IBW"):
        raise SuvError(
            f"{named('SUVType')} is '{kind}'", fix="known: BW, LBM, LBMJAMES128, LBMJANMA, IBW, BSA; export in Bq/ml"
        )
    if sex == "O":
        return (size_mass_kg(kind, weight_kg, height_m, "M") + size_mass_kg(kind, weight_kg, height_m, "F")) / 2
    if sex not in ("M", "F"):
        raise SuvError(
            f"{named('PatientSex')} is {repr(sex) if sex else 'missing'} and the values are SUV by {kind}",
            fix="M, F or O is needed to make SUVbw",
        )
    male, bmi = sex == "M", weight_kg / height_m**2
    if kind == "LBMJANMA":
        return 9270.0 * weight_kg / (6680.0 + 216.0 * bmi if male else 8780.0 + 244.0 * bmi)
    if kind == "IBW":
        return 48.0 + 1.06 * (height_cm - 152.0) if male else 45.5 + 0.91 * (height_cm - 152.0)
    factor = (128.0 if kind == "LBMJAMES128" else 120.0) if male else 148.0
    return (1.10 if male else 1.07) * weight_kg - factor * (weight_kg / height_cm) ** 2


def _is_weight(weight: float | None) -> bool:
    return weight is not None and WEIGHT_RANGE_KG[0] < weight < WEIGHT_RANGE_KG[1]
