"""De-identification of made-up identities planted into phantom reports: recall by kind, false removals, findings kept.

Run by `python benchmarks/run.py deid`; `python -P benchmarks/deid.py [held_out]` lists what was missed. Names, numbers
and dates are drawn from lists (deid_identities.json), put into sentences as reports have them, and written in mixed,
small or capital letters.
`held_out` uses sentences and names that were written before the rules were tuned and were not looked at while doing so.
Something counts as removed when each of its letters and digits is gone.
"""

from __future__ import annotations

import datetime
import importlib.util
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from petground.labeling.extract import extract_findings
from petground.pipeline.deid.date_forms import ORDINALS, ROMAN
from petground.pipeline.deid.identity import Identity
from petground.pipeline.deid.text import Cleaned, clean_text

HERE = Path(__file__).resolve().parent
LISTS = json.loads((HERE / "deid_identities.json").read_text(encoding="utf-8"))
REPORTS = 600
DAYS = -7 * 100
NAMES = (
    "known patient",
    "known physician",
    "known patient, compound",
    "name, signed or dictated",
    "name, titled",
    "name, spoken to",
    "name, bare",
)


class Planted(NamedTuple):
    """A report with identities in it: text, (kind, start, end) of each, what is known of the exam."""

    text: str
    places: list[tuple[str, int, int]]
    identity: Identity


def plant(base: str, rng: np.random.Generator, part: str) -> Planted:
    """Puts a header, remarks and a signature around a report and an identity or two into each."""
    lists, forms = LISTS["names"][part], LISTS["forms"][part]
    style = rng.choice(["mixed", "mixed", "mixed", "mixed", "upper", "lower"])
    person, doctor = _person(rng, lists), _person(rng, lists)
    number = f"{rng.integers(10**6, 10**8)}"
    accession = f"{rng.choice(['PT', 'NM', 'A'])}{rng.integers(18, 25)}-{rng.integers(10**4, 10**6)}"
    hospital = str(rng.choice(lists["hospitals"]))
    identity = Identity((f"{person[1]}^{person[0]}", f"{doctor[1]}^{doctor[0]}"), (number, accession), (hospital,))
    fixed = {"mrn": number, "accession": accession, "site": hospital}
    pieces: list[tuple[str | None, str]] = []
    count = {"head": 3, "remark": 4, "tail": 2}
    chunks: dict[str, list[list[tuple[str | None, str]]]] = {}
    for place, many in count.items():
        chosen = rng.permutation(len(forms[place]))[:many]
        chunks[place] = [_filled(forms[place][i], rng, lists, person, doctor, fixed) for i in chosen]
    paragraphs = base.strip("\n").split("\n\n")
    pieces += _lines(chunks["head"])
    for n, paragraph in enumerate(paragraphs):
        pieces.append((None, paragraph + "\n\n"))
        if n == 0:
            pieces += _lines(chunks["remark"])
    pieces += _lines(chunks["tail"])
    text, places = "", []
    for kind, piece in pieces:
        piece = (
            {"upper": piece.upper(), "lower": piece.lower()}.get(str(style), piece)
            if kind or style != "mixed"
            else piece
        )
        if kind is not None:
            places.append((kind, len(text), len(text) + len(piece)))
        text += piece
    return Planted(text, places, identity)


def _lines(sentences: list[list[tuple[str | None, str]]]) -> list[tuple[str | None, str]]:
    return [piece for sentence in sentences for piece in [*sentence, (None, "\n")]]


def _person(rng: np.random.Generator, lists: dict[str, Any]) -> tuple[str, str]:
    origin = str(rng.choice(sorted(lists["people"])))
    given, family = lists["people"][origin]
    return str(rng.choice(given)), str(rng.choice(family))


def _filled(
    form: str, rng: np.random.Generator, lists: dict[str, Any], person: Any, doctor: Any, fixed: dict[str, str]
) -> list[tuple[str | None, str]]:
    """A form's pieces; `{patient}`, `{physician}`, `{signed}`, ... become identities of that kind."""
    out: list[tuple[str | None, str]] = []
    for n, part in enumerate(form.replace("{", "}").split("}")):
        if n % 2 == 0:
            out.append((None, part))
            continue
        kind, _, shape = part.partition(":")
        out.append(_identity(kind, shape, rng, lists, person, doctor, fixed))
    return out


def _identity(
    kind: str,
    shape: str,
    rng: np.random.Generator,
    lists: dict[str, Any],
    person: Any,
    doctor: Any,
    fixed: dict[str, str],
) -> tuple[str, str]:
    if kind in ("patient", "physician"):
        return f"known {kind}", _written(*(person if kind == "patient" else doctor), shape, rng)
    if kind == "married":
        own, other = person[1], _person(rng, lists)[1]
        halves = (own, other) if rng.random() < 0.7 else (other, own)
        return "known patient, compound", str(rng.choice(LISTS["joints"])).join(halves)
    if kind in ("signed", "titled", "told", "bare"):
        full = {
            "signed": "name, signed or dictated",
            "titled": "name, titled",
            "told": "name, spoken to",
            "bare": "name, bare",
        }
        return full[kind], _written(*_person(rng, lists), shape, rng)
    if kind in fixed:
        return ("hospital, known" if kind == "site" else "id, known"), fixed[kind]
    if kind == "date":
        return "date", _date(rng, str(rng.choice(LISTS["dates"])))
    if kind == "birth":
        return "date of birth", _date(rng, str(rng.choice(LISTS["births"])), first=1930)
    if kind in lists:
        return kind, str(rng.choice(lists[kind]))
    if kind in LISTS["as they are"]:
        return kind, str(rng.choice(LISTS["as they are"][kind]))
    return kind, "".join(_sign(sign, rng) for sign in str(rng.choice(LISTS["shapes"][kind])))


def _sign(sign: str, rng: np.random.Generator) -> str:
    if sign == "9":
        return str(rng.integers(0, 10))
    if sign == "8":
        return str(rng.integers(2, 10))
    return str(rng.choice(list("ABCDEFGHJKLMNPRSTVWZ"))) if sign == "^" else sign


def _written(given: str, family: str, shape: str, rng: np.random.Generator) -> str:
    shapes = LISTS["written"] if not shape else {shape: LISTS["written"][shape]}
    form = str(rng.choice(list(shapes.values())))
    return form.format(given=given, family=family, g=given[0], m=str(rng.choice(list("ABEJLMRT"))))


def _date(rng: np.random.Generator, form: str, first: int = 2012) -> str:
    day = datetime.date(first, 1, 1) + datetime.timedelta(days=int(rng.integers(0, 4300)))
    told = day.strftime(form).replace("~0", "").replace("~", "")
    return told.replace("{roman}", ROMAN[day.month - 1]).replace("{word}", ORDINALS[day.day - 1])


def cases(part: str, count: int = REPORTS) -> Iterator[tuple[str, Planted]]:
    """Phantom reports and what was planted into them."""
    spec = importlib.util.spec_from_file_location("extract", HERE / "extract.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for index, row in enumerate(module.reports(count, seed=77 if part == "held_out" else 7)):
        rng = np.random.default_rng([5, index, part == "held_out"])
        yield row["report_text"], plant(row["report_text"], rng, part)


def score(part: str, count: int = REPORTS) -> tuple[dict[str, Any], list[str]]:
    """Figures over the reports of a part, and a line per miss and per false removal."""
    planted: Counter[str] = Counter()
    gone: Counter[str] = Counter()
    false: Counter[str] = Counter()
    lines, changed, seconds, characters = [], 0, 0.0, 0
    for _base, case in cases(part, count):
        start = time.perf_counter()
        cleaned = clean_text(case.text, case.identity, days=DAYS, year=2021)
        seconds, characters = seconds + time.perf_counter() - start, characters + len(case.text)
        covered = _covered(cleaned)
        for kind, first, last in case.places:
            planted[kind] += 1
            left = [c for c in range(first, last) if case.text[c].isalnum() and c not in covered]
            gone[kind] += not left
            if left:
                lines.append(f"MISSED {kind}: {case.text[max(0, first - 40) : first]}>>{case.text[first:last]}<<")
        for span in cleaned.spans:
            if (
                not any(first < span.end and span.start < last for _, first, last in case.places)
                and span.kind != "date"
            ):
                false[span.kind] += 1
                lines.append(
                    f"FALSE {span.kind} {span.rule}: {case.text[max(0, span.start - 40) : span.start]}>>"
                    + f"{case.text[span.start : span.end]}<<"
                )
        if _findings(case.text) != _findings(cleaned.text):
            changed += 1
            lines.append(f"FINDINGS CHANGED in a report of {len(case.text)} characters")
        again = clean_text(cleaned.text, case.identity, days=0)
        if again.text != cleaned.text:
            lines += [
                f"SECOND PASS {s.kind} {s.rule}: {cleaned.text[max(0, s.start - 30) : s.end]}" for s in again.spans
            ]
            false["second pass"] += 1
    groups = {
        "known identities": [k for k in planted if k.startswith("known") or k.endswith("known")],
        "dates": ["date", "date of birth"],
        "numbers, addresses, contacts": [
            k for k in planted if k not in NAMES and not k.startswith("date") and "known" not in k and k != "hospital"
        ],
        "names in signature or dictation": ["name, signed or dictated"],
    }
    return {
        "reports": count,
        "planted": sum(planted.values()),
        "recall": {
            name: round(sum(gone[k] for k in kinds) / max(sum(planted[k] for k in kinds), 1), 4)
            for name, kinds in groups.items()
        },
        "recall_by_kind": {
            kind: {"planted": n, "recall": round(gone[kind] / n, 4)} for kind, n in sorted(planted.items())
        },
        "false_removals_per_report": round(sum(v for k, v in false.items() if k != "second pass") / count, 4),
        "false_removals_by_kind": dict(false),
        "reports_whose_findings_changed": changed,
        "characters_per_second": round(characters / seconds),
    }, lines


def _covered(cleaned: Cleaned) -> set[int]:
    return {place for span in cleaned.spans for place in range(span.start, span.end)}


def _findings(text: str) -> list[Any]:
    return [(f.suv, f.slice, f.laterality, f.status, f.reason) for f in extract_findings(text)]


def measure() -> dict[str, Any]:
    """Figures of both parts."""
    return {part: score(part)[0] for part in ("tuned", "held_out")}


if __name__ == "__main__":
    part = sys.argv[1] if len(sys.argv) > 1 else "tuned"
    figures, lines = score(part, int(sys.argv[2]) if len(sys.argv) > 2 else REPORTS)
    kinds: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        kinds[line.split(":")[0]].append(line)
    for found in kinds.values():
        sys.stdout.write("\n".join(found[:12]) + f"\n   ... {len(found)} in all\n")
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")
