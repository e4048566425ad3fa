"""Sites by region of the body: what splits are balanced by and cards count, coarse enough to single nobody out."""

from __future__ import annotations

import re

__all__ = ["REGIONS", "region_of"]

# The first region with a word in the site decides: "iliac bone" is bone, "iliac node" pelvis, "hepatic hilum" liver.
_STEMS: dict[str, str] = {
    "brain": r"brain|cerebr|cerebell|intracran|pituitar|frontal|parietal|occipital|dura|meninge",
    "bone": (
        r"bones?|osseous|skelet|vertebra\w*|spin[ae]l?|[ctls]\d{1,2}|ribs?|stern|manubri|clavic|scapul|humer|femor"
        r"|femur|tibia|fibula|sacr|acetabul|ischi|pub(?:ic|is)|ilium|iliac (?:bone|wing|crest|lesion)|skull|mandib"
        r"|calvari|glenoid|coracoid|trochanter|patell|marrow|facet"
    ),
    "head and neck": (
        r"neck|cervical|tonsil|tongue|orophar|nasophar|hypophar|phary|laryn|glott|thyroid|parotid|submandib|sublingual"
        r"|salivar|oral|palat|nasal|sinus|orbit|supraclavic|level [iv\d]|jugul|scalp|face|facial"
    ),
    "abdomen": (
        r"liver|hepat|segments? (?:[ivx]+|\d)|spleen|splen|pancrea|adrenal|kidney|renal|stomach|gastri|duoden|bowel"
        r"|colon|colic|caec|cec|jejun|ile(?:um|al)\b|append|mesent|omen|periton|retroper|para-?aort|periaort|aortocav|caval"
        r"|porta|periport|portocav|celiac|coeliac|abdom|gallbl|bile|bili"
    ),
    "chest": (
        r"lung|lobe|lingul|pulmon|bronch|mediast|hil(?:ar|um|a)\b|(?:sub)?carin|(?:peri)?fissur|trachea|paratrach|pleur|thora|chest|breast|mamm"
        r"|axill|pectoral|\d{1,2}[rl]\b|hemithor|esophag|oesophag|prevascul|aortopulm|heart|cardi|diaphragm"
        r"|station|thym"
    ),
    "pelvis": (
        r"pelv|presacr|iliac|obturat|inguin|groin|prostat|bladder|uter|cervix|ovar|adnex|vagin|vulva|rect|anal|anus|seminal"
        r"|penis|testi|scrot|gluteal|pararect|mesorect"
    ),
    "limbs and skin": (
        r"arm|leg|extremit|thigh|calf|knee|foot|hand|wrist|elbow|shoulder|skin|cutan|subcut|muscle|soft tissue"
    ),
}
_RULES = [(region, re.compile(rf"\b(?:{stems})")) for region, stems in _STEMS.items()]
REGIONS = (*_STEMS, "not told")


def region_of(site: str | None) -> str:
    """One of REGIONS for the site as `findings.parquet` has it; "not told" without one or for words unknown here."""
    words = (site or "").lower()
    return next((region for region, rule in _RULES if rule.search(words)), "not told")
