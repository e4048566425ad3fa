"""Exams that are filed twice: same series, same voxels, the same image on another grid, nearly the same report.

A copy under a second patient id would put one image into training and test. Nothing here compares all with all:
equal things are sorted, images are looked up in a k-d tree, reports by MinHash (Broder 1997) in bands.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

__all__ = ["Duplicate", "find_duplicates", "groups_of", "similar_images", "similar_texts"]

IMAGE_TOLERANCE = 0.04  # of the norm; phantoms: a resampled copy at 0.002 to 0.007, two exams of one patient at 0.09
MOST_ALIKE = 3  # exams; who resembles more is bland rather than copied so often, and the hottest voxel must agree
SAME_PEAK_MM = 16.0
PROJECTIONS, WIDER = 8, 1.9  # 1 of 4,000 pairs at the tolerance would be missed: chi2 of 8 degrees above 8 * 1.9**2
SHINGLE_WORDS, HASHES, BANDS = 3, 64, 16
TEXT_SIMILARITY, FEWEST_SHINGLES = 0.75, 20
FEWEST_IF_EQUAL = 8  # a shorter text must be equal word for word, and long enough to be no phrase of habit
BUCKET = 24  # of more texts in one bucket only neighbours are compared
_WORD = re.compile(r"[a-z]+|\d+(?:\.\d+)?")
Pair = tuple[str, str]


@dataclass(frozen=True)
class Duplicate:
    """Two exams and what speaks for their being one. similarity: 1 for equal things, else the nearer one's."""

    exam_a: str
    exam_b: str
    evidence: tuple[str, ...]
    similarity: float


def find_duplicates(prints: Mapping[str, Mapping[str, Any]], texts: Mapping[str, str]) -> list[Duplicate]:
    """Pairs by exam id. prints: outcome of `fingerprint_case` by exam; texts: what is known of each report."""
    found: dict[Pair, dict[str, float]] = defaultdict(dict)
    for name, key in (("same_series", "series"), ("same_voxels", "voxels")):
        for pair in _equal({exam: one[key] for exam, one in prints.items()}):
            found[pair][name] = 1.0
    first = {one["voxels"]: exam for exam, one in sorted(prints.items(), reverse=True)}  # one of equal images will do
    images = {exam: np.frombuffer(base64.b64decode(prints[exam]["low"]), dtype="<f2") for exam in first.values()}
    alike = dict(similar_images(images))
    crowd = {exam for exam, count in Counter(itertools.chain.from_iterable(alike)).items() if count > MOST_ALIKE}
    for pair, similarity in alike.items():
        if not crowd.intersection(pair) or _same_peak(*(prints[exam].get("peak_mm") or () for exam in pair)):
            found[pair]["similar_image"] = similarity
    for pair, similarity in similar_texts(texts):
        found[pair]["similar_report"] = similarity
    return [Duplicate(*pair, tuple(why), max(why.values())) for pair, why in sorted(found.items())]


def _same_peak(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether the hottest voxels lie at one place from the centre of uptake; False where that is not known."""
    return bool(len(one) == len(other) == 3 and np.linalg.norm(np.subtract(one, other)) <= SAME_PEAK_MM)


def similar_images(low: Mapping[str, NDArray[Any]]) -> Iterator[tuple[Pair, float]]:
    """Pairs whose fingerprints differ by less than 4 % of their norm, with 1 minus the difference."""
    exams = sorted(exam for exam, values in low.items() if np.asarray(values, dtype=np.float32).any())
    if len(exams) < 2:
        return
    values = np.stack([np.asarray(low[exam], dtype=np.float32) for exam in exams])
    norms = np.linalg.norm(values, axis=1)
    unit = values / norms[:, None]
    directions = np.random.default_rng(20250101).standard_normal((values.shape[1], PROJECTIONS))
    tree = cKDTree(unit @ directions / np.sqrt(PROJECTIONS))
    for a, b in sorted(tree.query_pairs(WIDER * IMAGE_TOLERANCE)):
        apart = float(np.linalg.norm(values[a] - values[b]) / max(norms[a], norms[b]))
        if apart < IMAGE_TOLERANCE:
            yield (exams[a], exams[b]), round(1.0 - apart, 4)


def similar_texts(texts: Mapping[str, str]) -> Iterator[tuple[Pair, float]]:
    """Pairs of texts that share 75 % of their three-word shingles (numbers count as words), with that share."""
    shingles = {exam: found for exam, text in sorted(texts.items()) if len(found := _shingles(text)) >= FEWEST_IF_EQUAL}
    rng = np.random.default_rng(20250102)
    factors = rng.integers(1, 1 << 61, (2, HASHES), dtype=np.uint64) | np.uint64(1)
    signature = {exam: _signature(found, factors) for exam, found in shingles.items()}
    rows, seen = HASHES // BANDS, set[Pair]()
    for band in range(BANDS):
        buckets: dict[bytes, list[str]] = defaultdict(list)
        for exam, hashes in signature.items():
            buckets[hashes[band * rows : (band + 1) * rows].tobytes()].append(exam)
        for exams in buckets.values():
            near = len(exams) - 1 if len(exams) <= BUCKET else 1
            exams.sort(key=lambda exam: (signature[exam].tobytes(), exam))
            for i, one in enumerate(exams):
                for other in exams[i + 1 : i + 1 + near]:
                    pair = (one, other) if one < other else (other, one)
                    if pair in seen:
                        continue
                    seen.add(pair)
                    a, b = set(shingles[one].tolist()), set(shingles[other].tolist())
                    share = len(a & b) / len(a | b)
                    if share == 1.0 or (share >= TEXT_SIMILARITY and min(len(a), len(b)) >= FEWEST_SHINGLES):
                        yield pair, round(share, 4)


def groups_of(links: Iterable[Pair]) -> dict[str, str]:
    """Whoever hangs together, directly or through others: {member: the group's first member by name}."""
    parent: dict[str, str] = {}

    def root(one: str) -> str:
        parent.setdefault(one, one)
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    for a, b in links:
        first, second = sorted((root(a), root(b)))
        parent[second] = first
    return {one: root(one) for one in sorted(parent)}


def _equal(values: Mapping[str, str | None]) -> Iterator[Pair]:
    """Neighbours among exams of equal value, so that n copies give n - 1 pairs."""
    ranked: Sequence[tuple[str, str]] = sorted((value, exam) for exam, value in values.items() if value)
    for (one, exam), (other, next_exam) in itertools.pairwise(ranked):
        if one == other:
            yield (exam, next_exam)


def _shingles(text: str) -> NDArray[np.uint64]:
    words = _WORD.findall(text.lower().replace(",", "."))
    found = {" ".join(words[n : n + SHINGLE_WORDS]) for n in range(len(words) - SHINGLE_WORDS + 1)}
    digests = [hashlib.blake2b(one.encode(), digest_size=8).digest() for one in found]
    return np.unique(np.frombuffer(b"".join(digests), dtype="<u8")) if digests else np.empty(0, dtype=np.uint64)


def _signature(shingles: NDArray[np.uint64], factors: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The least of each of 64 multiply-shift hashes over the shingles [64]."""
    mixed = shingles[:, None] * factors[0] + factors[1]  # modulo 2**64, as unsigned integers wrap
    mixed ^= mixed >> np.uint64(29)
    mixed *= factors[0]
    least: NDArray[np.uint64] = mixed.min(axis=0)
    return least
