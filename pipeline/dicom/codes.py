"""SNOMED CT codes of the places and sides that findings name, and the few codes that every object needs.

Only concepts that DICOM's own context groups list are used (they come with pydicom); a place that is not among them
gets no code rather than a guessed one.
"""

from __future__ import annotations

import re

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

__all__ = [
    "LESION",
    "LESION_CATEGORY",
    "MAXIMUM",
    "MILLILITRE",
    "SUV_BW",
    "SUV_BW_UNIT",
    "VOLUME",
    "side_code",
    "site_code",
]

LESION_CATEGORY = Code("49755003", "SCT", "Morphologically Abnormal Structure")  # CID 7150
LESION = Code("52988006", "SCT", "Lesion")  # CID 7159
MAXIMUM = Code("56851009", "SCT", "Maximum")  # CID 7464
SUV_BW = Code("126401", "DCM", "SUVbw")  # CID 7469
SUV_BW_UNIT = Code("{SUVbw}g/ml", "UCUM", "Standardized Uptake Value body weight")  # CID 85
VOLUME = Code("118565006", "SCT", "Volume")  # CID 7469
MILLILITRE = Code("ml", "UCUM", "Milliliter")

_SIDES = {
    "left": Code("7771000", "SCT", "Left"),
    "right": Code("24028007", "SCT", "Right"),
    "bilateral": Code("51440002", "SCT", "Right and left"),
}  # CID 244

_NODES = (
    (r"supraclav", "SupraclavicularLymphNode"),
    (r"infraclav", "InfraclavicularLymphNode"),
    (r"axilla|subpectoral", "AxillaryLymphNode"),
    (r"cervical|neck|jugul", "CervicalLymphNode"),
    (r"anterior mediastin", "AnteriorMediastinalLymphNode"),
    (r"hil(?:um|ar)", "HilarLymphNode"),
    (r"mediast|paratrach|prevasc|subcarin|aortopulm", "MediastinalLymphNode"),
    (r"inguin|groin", "InguinalLymphNode"),
    (r"external iliac", "ExternalIliacLymphNode"),
    (r"iliac", "IliacLymphNode"),
    (r"mesent", "LymphNodeOfMesentery"),
    (r"retroperit|para-?aort|retrocav|aortocav", "RetroperitonealLymphNode"),
    (r"pelvi|obturator|presacral", "PelvicLymphNode"),
    (r"parotid", "ParotidLymphNode"),
    (r"pancrea", "PancreaticLymphNode"),
    (r"abdom", "AbdominalLymphNode"),
)
"""Pattern and pydicom's name of the concept; the first that is met counts. Places are met at the start of a word only:
"peripancreatic" is not the pancreas, "paraspinal" not the spine."""

_PLACES = (
    (r"splenic flexure", "SplenicFlexureOfColon"),
    (r"hepatic flexure", "HepaticFlexureOfColon"),
    (r"gallbladder", "Gallbladder"),
    (r"hilum|hilar", "HilumOfLung"),
    (r"upper lobe", "UpperLobeOfLung"),
    (r"middle lobe", "MiddleLobeOfRightLung"),
    (r"lower lobe", "LowerLobeOfLung"),
    (r"lingul|lung|pulmon", "Lung"),
    (r"pleura", "Pleura"),
    (r"mediast", "Mediastinum"),
    (r"adrenal", "AdrenalGland"),
    (r"liver|hepatic", "Liver"),
    (r"spleen|splenic", "Spleen"),
    (r"pancrea", "Pancreas"),
    (r"kidney|renal", "Kidney"),
    (r"thyroid", "Thyroid"),
    (r"parotid", "ParotidGland"),
    (r"tonsil", "PalatineTonsil"),
    (r"base of (?:the )?tongue|tongue base", "BaseOfTongue"),
    (r"tongue", "Tongue"),
    (r"larynx|laryng", "Larynx"),
    (r"pharyn", "Pharynx"),
    (r"o?esophag", "Esophagus"),
    (r"stomach|gastric", "Stomach"),
    (r"duoden", "Duodenum"),
    (r"sigmoid", "SigmoidColon"),
    (r"rectum|rectal", "Rectum"),
    (r"c(?:a)?ecum|cecal", "Cecum"),
    (r"colon", "Colon"),
    (r"prostat", "Prostate"),
    (r"bladder", "Bladder"),
    (r"cervix", "CervixUteriStructure"),
    (r"uter", "Uterus"),
    (r"ovar", "Ovary"),
    (r"breast", "Breast"),
    (r"\brib", "Rib"),
    (r"sternum|sternal|manubri", "Sternum"),
    (r"clavic", "Clavicle"),
    (r"scapul", "Scapula"),
    (r"humer", "Humerus"),
    (r"proximal femur|proximal femoral", "ProximalFemur"),
    (r"femur|femoral", "Femur"),
    (r"acetab", "Acetabulum"),
    (r"ischi", "Ischium"),
    (r"iliac crest", "IliacCrest"),
    (r"ilium|iliac (?:bone|wing)", "Ilium"),
    (r"sacrum|sacral", "Sacrum"),
    (r"skull", "Skull"),
    (r"mandib", "Mandible"),
    (r"cervical spine", "CervicalSpine"),
    (r"thoracic spine", "ThoracicSpine"),
    (r"lumbar spine", "LumbarSpine"),
    (r"spine|spinal|vertebra", "Spine"),
    (r"gluteal", "Buttock"),
    (r"thigh", "Thigh"),
    (r"chest wall", "ChestWall"),
    (r"axilla", "Axilla"),
    (r"inguin|groin", "InguinalRegion"),
    (r"omentum|omental", "Omentum"),
    (r"mesent|peritone|bowel|abdom", "Abdomen"),
    (r"retroperit", "Retroperitoneum"),
    (r"neck", "Neck"),
    (r"cerebell", "Cerebellum"),
    (r"brain|cerebr", "Brain"),
    (r"pelvi", "Pelvis"),
)
_OTHER_HILUM = re.compile(r"splen|renal|kidney|hepat|liver|porta|adrenal|ovar|fatty", re.I)
_OTHER_LOBE = re.compile(
    r"thyroid|renal|kidney|liver|hepat|caudate|parotid|prostat|thym|brain|cerebr|frontal|tempor|occipit", re.I
)
"""The hilum and the lobes are the lung's unless the words name another organ that has one."""

_LUNG_PARTS = {"UpperLobeOfLung", "MiddleLobeOfRightLung", "LowerLobeOfLung"}
_LEVEL = r"\b([ctl])[- ]?(\d{1,2})\b"
_BONE = r"(?:vertebra\w*|bod(?:y|ies)|spine|spinal|spinous|pedicles?|laminae?|facets?|endplates?|end plates?)"
_ASIDE = r"(?:left|right|anterior|posterior|superior|inferior|lateral|transverse)"
_BONE_AFTER = re.compile(rf"{_LEVEL}(?: {_ASIDE})* {_BONE}\b", re.I)
_BONE_BEFORE = re.compile(rf"\b{_BONE}(?: process(?:es)?)?(?: of| the| at)* {_LEVEL}", re.I)
_LEVEL_ONLY = re.compile(rf"(?:{_ASIDE} )*{_LEVEL}(?: lesions?)?", re.I)
_BESIDE_BONE = re.compile(
    r"\b(?:soft tissue|muscle|adjacent|beside|next to|near|level|(?:anterior|posterior|lateral) to)\b", re.I
)
"""A vertebra's number also tells a height in the body, and a T or L is also a stage or a segment: it is a vertebra only
beside a word for one, or where it is all that the place says."""

_NODE = re.compile(r"\bnod(?:e|es|al)\b|lymph|adenopathy", re.I)


def site_code(site: str | None) -> Code | None:
    """SNOMED CT code of a place as a finding words it ("axillary node", "t11 vertebral body lesion"), or None."""
    if not site:
        return None
    if _NODE.search(site):
        names = [name for pattern, name in _NODES if re.search(pattern, site, re.I)]
        if _OTHER_HILUM.search(site):
            names = [name for name in names if name != "HilarLymphNode"]
        return _concept([*names, "LymphNode"][0])
    if vertebra := _vertebra(site):
        return _concept(vertebra)
    names = [name for pattern, name in _PLACES if re.search(rf"\b(?:{pattern})", site, re.I)]
    if "HilumOfLung" in names and _OTHER_HILUM.search(site):
        return None  # beside the organ, not in it
    if _OTHER_LOBE.search(site):
        names = [name for name in names if name not in _LUNG_PARTS]
    if _BESIDE_BONE.search(site):
        names = [name for name in names if not name.endswith("Spine")]
    return _concept(names[0]) if names else None


def _vertebra(site: str) -> str | None:
    """Name of the one vertebra that a place means, None for none, for several or when it is not sure to be bone."""
    if _BESIDE_BONE.search(site) or len(re.findall(_LEVEL, site, re.I)) != 1:
        return None
    found = _BONE_AFTER.search(site) or _BONE_BEFORE.search(site) or _LEVEL_ONLY.fullmatch(site.strip())
    return f"{found.group(1).upper()}{int(found.group(2))}Vertebra" if found else None


def side_code(laterality: str | None) -> Code | None:
    """SNOMED CT code of left, right or bilateral; None for anything else."""
    return _SIDES.get(laterality or "")


def _concept(name: str) -> Code | None:
    try:
        found: Code = getattr(codes.SCT, name)
    except AttributeError:
        return None
    return found
