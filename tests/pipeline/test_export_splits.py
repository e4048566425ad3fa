"""Splits: by patient, balanced, the same in any order, unmoved when cases are added."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petground.labeling.errors import ConfigError, InputError
from petground.labeling.regions import region_of
from petground.pipeline.exports.select import ExamOut, Lesion
from petground.pipeline.exports.strata import (
    Partition,
    divide,
    ledger_path,
    read_ledger,
    read_shares,
    strata_table,
    write_ledger,
)
from petground.pipeline.splits import assign, part_counts

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def made_up(count: int, seed: int = 0) -> dict[str, set[str]]:
    """Patients with a tracer (one of them rare), regions and a burden."""
    rng = np.random.default_rng(seed)
    tracers = rng.choice(["FDG", "PSMA", "DOTATATE", "rare"], count, p=[0.6, 0.25, 0.1, 0.05])
    burdens = rng.choice(["one", "few", "many"], count, p=[0.5, 0.3, 0.2])
    regions = [set(rng.choice(["chest", "abdomen", "pelvis", "bone"], rng.integers(1, 3))) for _ in range(count)]
    return {f"p{n}": {str(tracers[n]), str(burdens[n]), *map(str, regions[n])} for n in range(count)}


def exam(number: int, patient: str | None = None, tracer: str = "FDG", lesions: int = 1) -> ExamOut:
    one = Lesion("f001", "words", "m", "lung", None, 5.0, 5.0, 1, 1, (0, 0, 0), 3.0, 0.9)
    name = f"e{number:03d}"
    return ExamOut(name, patient or f"p{number:03d}", tracer, "2020", "pet", "ct", (one,) * lesions)


def test_shares_are_honoured_and_every_trait_is_shared_out_like_the_whole() -> None:
    traits = made_up(400)
    parts = assign(traits, SHARES, seed=0)
    assert Counter(parts.values()) == {"train": 320, "val": 40, "test": 40}
    totals = Counter(t for found in traits.values() for t in found)
    for part in ("val", "test"):
        counts = Counter(t for p, found in traits.items() if parts[p] == part for t in found)
        for trait, total in totals.items():
            assert abs(counts[trait] - 0.1 * total) <= 2.5, (part, trait)
    by_chance = [p for p in sorted(traits) if int(p[1:]) % 10 == 0]
    spread = [abs(sum("rare" in traits[p] for p in by_chance) - 0.1 * totals["rare"])]
    assert abs(sum(parts[p] == "test" for p, t in traits.items() if "rare" in t) - 0.1 * totals["rare"]) <= 1, spread


def test_order_changes_nothing_and_the_seed_does() -> None:
    traits = made_up(60)
    shuffled = {p: traits[p] for p in sorted(traits, key=lambda p: p[::-1])}
    assert assign(shuffled, SHARES, seed=1) == assign(traits, SHARES, seed=1)
    assert assign(traits, SHARES, seed=2) != assign(traits, SHARES, seed=1)


def test_who_has_a_part_keeps_it_when_others_join_and_the_shares_still_hold() -> None:
    first = made_up(100)
    before = assign(first, SHARES, seed=0)
    grown = made_up(100) | {f"new{n}": t for n, t in enumerate(made_up(80, seed=5).values())}
    after = assign(grown, SHARES, seed=0, earlier=before)
    assert {p: after[p] for p in first} == before
    assert Counter(after.values()) == {"train": 144, "val": 18, "test": 18}


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.text(min_size=1, max_size=3), st.frozensets(st.sampled_from("abcdef")), max_size=25),
    st.integers(0, 3),
    st.sampled_from([SHARES, {"train": 1.0}, {"train": 0.5, "val": 0.5}, {"train": 0.7, "val": 0.3, "test": 0.0}]),
)
def test_every_patient_gets_exactly_one_part(traits: dict[str, frozenset[str]], seed: int, shares: dict) -> None:
    parts = assign(traits, shares, seed=seed)
    assert set(parts) == set(traits)
    assert Counter(parts.values()) == +Counter(part_counts(len(traits), shares))


def test_small_and_impossible_shares() -> None:
    assert part_counts(10, SHARES) == {"train": 8, "val": 1, "test": 1}
    assert part_counts(3, SHARES) == {"train": 1, "val": 1, "test": 1}
    assert part_counts(1, SHARES) == {"train": 1, "val": 0, "test": 0}
    assert part_counts(7, {"train": 0.8, "val": 0.2, "test": 0.0}) == {"train": 6, "val": 1, "test": 0}
    with pytest.raises(ConfigError, match="add up to 1"):
        part_counts(5, {"train": 0.8, "val": 0.1})
    assert read_shares("80/10/10") == pytest.approx(SHARES)
    assert read_shares("4:1") == pytest.approx({"train": 0.8, "val": 0.2, "test": 0.0})
    for wrong in ("80", "a/b", "0/50/50", "80/-10/30", "nan/1/1", "inf/1/1", "", "1/2/3/4"):
        with pytest.raises(ConfigError, match="--split"):
            read_shares(wrong)


def test_folds_take_every_training_patient_once_and_fold_0_is_the_validation() -> None:
    exams = {f"e{n:03d}": exam(n, f"p{n // 2:03d}") for n in range(60)}
    made = divide(exams, SHARES, seed=0, linked={})
    assert made.folds == 5
    for patient, part in made.part.items():
        if part != "test":
            assert (made.fold[patient] == 0) == (part == "val")
    sizes = Counter(made.fold[p] for p, part in made.part.items() if part == "train")
    assert set(sizes) == {1, 2, 3, 4}
    assert max(sizes.values()) - min(sizes.values()) <= 1
    few = divide({"a": exam(1), "b": exam(2)}, SHARES, seed=0, linked={})
    assert few.folds <= 2


def test_linked_patients_never_straddle_and_who_was_learnt_from_stays_in_train(tmp_path: Path) -> None:
    exams = {f"e{n:03d}": exam(n) for n in range(40)}
    apart = divide(exams, SHARES, seed=0, linked={})
    trained = next(p for p, part in sorted(apart.part.items()) if part == "train")
    tested = next(p for p, part in sorted(apart.part.items()) if part == "test")
    linked = {trained: min(trained, tested), tested: min(trained, tested)}
    fresh = divide(exams, SHARES, seed=0, linked=linked)
    assert fresh.part[trained] == fresh.part[tested]
    path = ledger_path(tmp_path, SHARES, 0)
    write_ledger(path, apart, exams, {})
    later = divide(exams, SHARES, seed=0, linked=linked, earlier=read_ledger(path))
    assert later.part[trained] == later.part[tested] == "train"
    assert later.moved == 1
    assert {p: x for p, x in later.part.items() if p != tested} == {p: x for p, x in apart.part.items() if p != tested}


def test_the_ledger_names_no_patient_keeps_the_absent_and_serves_training(tmp_path: Path) -> None:
    from petground.pipeline.splits import read_splits

    exams = {f"e{n:03d}": exam(n) for n in range(20)}
    path = ledger_path(tmp_path, SHARES, 0)
    assert path.name == "80-10-10-seed0.json"
    made = divide(exams, SHARES, seed=0, linked={})
    write_ledger(path, made, exams, {})
    assert "p001" not in path.read_text()
    told = read_splits(path, {e: x.patient_id for e, x in exams.items()})
    assert {part: len(found) for part, found in told.items()} == {"train": 16, "val": 2, "test": 2}
    ledger = read_ledger(path)
    fewer = {e: x for e, x in exams.items() if x.patient_id != "p003"}
    write_ledger(path, divide(fewer, SHARES, seed=0, linked={}, earlier=ledger), fewer, ledger)
    again = divide(exams, SHARES, seed=0, linked={}, earlier=read_ledger(path))
    assert again.part == made.part, "who was away comes back to his part"
    for broken in ("[]", "{", '{"patients": {"a": "nowhere"}, "folds": {}}', '{"patients": 3, "folds": {}}'):
        path.write_text(broken)
        with pytest.raises(InputError, match="not the splits file"):
            read_ledger(path)


def test_the_table_counts_patients_by_trait() -> None:
    traits = {"p": frozenset({"tracer: FDG"}), "q": frozenset({"tracer: FDG", "region: bone"})}
    made = Partition({"p": "train", "q": "val"}, {"p": 1, "q": 0}, 2, traits)
    assert strata_table(made) == [
        {"trait": "patients", "train": 1, "val": 1, "test": 0},
        {"trait": "region: bone", "train": 0, "val": 1, "test": 0},
        {"trait": "tracer: FDG", "train": 1, "val": 1, "test": 0},
    ]


@pytest.mark.parametrize(
    ("site", "region"),
    [
        ("iliac bone", "bone"),
        ("external iliac lymph node", "pelvis"),
        ("t8 vertebral body", "bone"),
        ("segment vi hepatic lesion", "abdomen"),
        ("left upper lobe nodule", "chest"),
        ("4r node", "chest"),
        ("para-aortic node", "abdomen"),
        ("cervical spine", "bone"),
        ("level ii cervical node", "head and neck"),
        ("presacral node", "pelvis"),
        ("left thigh", "limbs and skin"),
        ("something else", "not told"),
        (None, "not told"),
    ],
)
def test_sites_fall_into_regions(site: str | None, region: str) -> None:
    assert region_of(site) == region
