"""Who trains, who validates, who is kept for the test: by patient, never by exam or sentence. The one place for it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from itertools import combinations
from pathlib import Path

from petground.labeling.errors import ConfigError, InputError
from petground.pipeline.files import write_json

__all__ = ["assign", "part_counts", "patient_hash", "read_splits", "split_patients", "write_splits"]

Splits = dict[str, list[str]]


def split_patients(patient_of: Mapping[str, str], *, validation: float, seed: int, test: float = 0.0) -> Splits:
    """{exam_id: patient_id} -> {"train": [exam_id], "val": [exam_id], "test": [exam_id]}, each sorted.

    Patients are ranked by a keyed hash, so the split does not depend on order, and a patient who joins later moves
    few others. At least one patient trains; at least one validates when `validation` > 0 and there are two. What is
    kept for the test is neither learnt from nor looked at.
    """
    if not 0 <= validation < 1:
        raise ConfigError(f"validation fraction is {validation}", fix="a number from 0 to below 1")
    if not 0 <= test < 1 - validation:
        raise ConfigError(f"test fraction is {test}", fix="with the validation fraction it must stay below 1")
    ranked = sorted(set(patient_of.values()), key=lambda patient: _rank(seed, patient))
    count = round(validation * len(ranked))
    if validation > 0 and len(ranked) > 1:
        count = min(max(count, 1), len(ranked) - 1)
    kept = min(round(test * len(ranked)), max(0, len(ranked) - count - 1))
    parts = {
        "train": set(ranked[count + kept :]),
        "val": set(ranked[:count]),
        "test": set(ranked[count : count + kept]),
    }
    return {
        name: sorted(exam for exam, patient in patient_of.items() if patient in patients)
        for name, patients in parts.items()
    }


def assign(
    traits: Mapping[str, Collection[str]],
    shares: Mapping[str, float],
    *,
    seed: int,
    earlier: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Patients to parts, so that every trait is shared out like the whole: {patient: part}.

    traits: what of a patient must be balanced, e.g. {"p1": {"tracer FDG", "region chest"}}; any number per patient.
    shares: {"train": 0.8, "val": 0.1, "test": 0.1}; the parts get these shares of the patients, rounded.
    earlier: patients whose part is fixed already; they stay, and the others fill what is missing.

    Iterative stratification (Sechidis et al., ECML PKDD 2011): the rarest trait is dealt out first, each patient to
    the part that wants it most. The outcome depends on the patients, their traits and the seed, not on their order.
    """
    units = set(traits)
    fixed = {unit: part for unit, part in (earlier or {}).items() if unit in units and part in shares}
    sizes = part_counts(len(units), shares)
    room = dict(sizes)
    room.update({p: max(0, room[p] - n) for p, n in Counter(fixed.values()).items()})
    wish: dict[str, dict[str, float]] = {}
    for trait, count in Counter(t for unit in units for t in traits[unit]).items():
        wish[trait] = {part: count * sizes[part] / len(units) for part in shares}
    for unit, part in fixed.items():
        for trait in traits[unit]:
            wish[trait][part] -= 1
    left = sorted(units - set(fixed), key=lambda unit: _rank(seed, unit))
    out = dict(fixed)

    def put(unit: str, trait: str | None) -> None:
        def want(part: str) -> tuple[float, float, str]:
            own = wish[trait][part] if trait is not None else 0.0
            return round(own, 9), room[part] / max(sizes[part], 1), _rank(seed, f"{unit}/{part}")

        part = max((p for p in shares if room[p] > 0), key=want)
        out[unit] = part
        room[part] -= 1
        for each in traits[unit]:
            wish[each][part] -= 1

    while left:
        counts = Counter(t for unit in left for t in traits[unit])
        rarest = min(counts, key=lambda t: (counts[t], t)) if counts else None
        for unit in left:
            if rarest is None or rarest in traits[unit]:
                put(unit, rarest)
        left = [unit for unit in left if unit not in out]
    return out


def part_counts(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """How many of `total` each part gets: largest remainders, and at least one each when there are enough.

    Raises ConfigError unless the shares are at least 0 and add up to 1.
    """
    if any(share < 0 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        raise ConfigError(f"the split's shares are {dict(shares)}", fix="shares of at least 0 that add up to 1")
    wanted = [part for part, share in shares.items() if share > 0]
    counts = {part: int(total * share + 1e-9) for part, share in shares.items()}
    by_rest = sorted(wanted, key=lambda part: -(total * shares[part] - counts[part]))
    for part in by_rest[: total - sum(counts.values())]:
        counts[part] += 1
    if total >= len(wanted):
        for part in wanted:
            while counts[part] == 0:
                counts[max(wanted, key=lambda p: counts[p])] -= 1
                counts[part] += 1
    return counts


def patient_hash(patient_id: str) -> str:
    """32 hex digits that stand for a patient in a checkpoint: the same in every export, without the id itself."""
    return hashlib.blake2b(patient_id.encode(), digest_size=16).hexdigest()


def read_splits(path: Path, patient_of: Mapping[str, str]) -> Splits:
    """A split written before. Raises InputError when unreadable, for unknown exams, or a patient in two parts."""
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))
        found: Splits = {name: sorted(map(str, splits[name])) for name in ("train", "val")}
        if "test" in splits:
            found["test"] = sorted(map(str, splits["test"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a splits file", fix='{"train": [exam ids], "val": [exam ids]}') from error
    unknown = [exam for exams in found.values() for exam in exams if exam not in patient_of]
    if unknown:
        raise InputError(f"{path}: {len(unknown)} exams are not among these data, the first is {unknown[0]}")
    for one, other in combinations(found, 2):
        both = _patients(found[one], patient_of) & _patients(found[other], patient_of)
        if both:
            raise InputError(f"{path}: {len(both)} patients are in {one} and {other}, the first is {min(both)}")
    return found


def write_splits(path: Path, splits: Mapping[str, list[str]]) -> None:
    """Written under another name, then renamed."""
    write_json(path, dict(splits))


def _patients(exams: Iterable[str], patient_of: Mapping[str, str]) -> set[str]:
    return {patient_of[exam] for exam in exams}


def _rank(seed: int, patient: str) -> str:
    return hashlib.sha256(f"{seed}/{patient}".encode()).hexdigest()
