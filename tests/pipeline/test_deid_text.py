"""Report text: what identifies goes, what is clinical stays, whatever the text."""

from __future__ import annotations

import gc
import json
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petground.labeling.extract import extract_findings
from petground.labeling.volume import Volume
from petground.pipeline.deid.dates import shift_dicom_date
from petground.pipeline.deid.identity import Identity
from petground.pipeline.deid.text import clean_text
from petground.pipeline.deid.words import load_rules
from petground.pipeline.phantom.records import Lesion, Patient, PhantomExam
from petground.pipeline.phantom.reports import write_report
from petground.pipeline.phantom.sites import SITES

RULES = [*load_rules("numbers")["rules"], *load_rules("names")["rules"]]
DAYS = -700
JANE = Identity(("DOE^JANE^Q", "Müller-Groß^Hans"), ("00123456", "PT-21-0417"), ("Mercy General",), date(1951, 4, 3))


def findings(text: str) -> list[Any]:
    return [(f.suv, f.slice, f.laterality, f.site, f.status, f.reason) for f in extract_findings(text)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["name"])
def test_each_rule_removes_what_its_example_says(rule: dict[str, str]) -> None:
    assert rule["gone"] in rule["example"]
    assert rule["gone"] not in clean_text(rule["example"]).text


@pytest.mark.parametrize(
    "written",
    [
        "DOE, JANE", "Jane Doe", "Ms. Doe", "J. Doe", "doe", "DOE^JANE^Q", "Jane Q. Doe", "Jane X Doe", "jdoe", "Doe's",
        "Mueller-Gross", "Müller-Groß", "muller-gross", "Hans Muller Gross", "Herr Müller", "H. Müller-Groß",
        "123456", "00123456", "00-123-456", "PT210417", "pt-21-0417", "MERCY  GENERAL", "mercy general",
    ],
)  # fmt: skip
def test_known_identities_go_in_every_form(written: str) -> None:
    text = f"FINDINGS: Left axillary node with SUVmax 5.4 at slice 104, see {written}, liver 2.3."
    new = clean_text(text, JANE).text
    left = new.removeprefix("FINDINGS: Left axillary node with SUVmax 5.4 at slice 104, see ").removesuffix(
        ", liver 2.3."
    )
    assert left != new
    assert not any(part in left.lower() for part in ("doe", "jan", "ller", "gro", "hans", "1234", "0417", "mercy", "^"))


def test_names_that_are_words_go_only_where_a_person_is_meant() -> None:
    identity = Identity(("Head^Anne", "Long^Peter", "Hodgkin^Thomas", "Li^Wei"))
    text = (
        "Mr. Head was seen by Long today. Anne Head came. Head: normal. Long segment of colon, head and "
        "neck normal. Hodgkin lymphoma. Thomas Hodgkin. Dr. Hodgkin. Wei Li. LI-RADS 4."
    )
    assert clean_text(text, identity).text == (
        "Mr. [NAME] was seen by [NAME] today. [NAME] came. Head: normal. Long segment of colon, head and neck normal. "
        "Hodgkin lymphoma. [NAME]. Dr. [NAME]. [NAME]. LI-RADS 4."
    )


@pytest.mark.parametrize(
    ("text", "new"),
    [
        ("Compared to 03/04/2021.", "Compared to 04/04/2019."),
        ("on 3/4/21 and 12/30/2020", "on 4/4/19 and 01/30/2019"),
        ("on 30/12/2020 and 3/4/2021", "on 30/01/2019 and 4/5/2019"),
        ("30.12.2020", "30.01.2019"),
        ("2021-03-04T10:22:01", "2019-04-04T10:22:01"),
        ("March 4th, 2021; 4 MAR 2021; Sept. 2, 2020", "April 4th, 2019; 4 APR 2019; Oct. 3, 2018"),
        ("in March 2021, since 2019, (2015)", "in April 2019, since 2017, (2013)"),
        ("surgery 12/2020; 20210304", "surgery 01/2019; 20190404"),
        ("13/45/2020", "[DATE]"),
        ("PET/CT from 3/28", "PET/CT from 4/28"),
        ("DOB: 01/02/1950. Born 1950-01-02", "DOB: [BIRTH DATE]. Born [BIRTH DATE]"),
        ("April 3, 1951 is known", "[BIRTH DATE] is known"),
    ],
)
def test_dates_move_in_their_form(text: str, new: str) -> None:
    assert clean_text(text, JANE, days=DAYS, year=2021).text == new


@pytest.mark.parametrize(
    "text",
    [
        "SUVmax 5.4 at slice 104 (3:104), series 3 image 2015, 3/104, 1.2 x 3.4 cm, level II/III, C3/4, T4N2M1.",
        "Hodgkin lymphoma, Virchow node, Waldeyer, pouch of Douglas, Gleason 4+3, Deauville 4, Ann Arbor III, Lugano.",
        "Krukenberg tumor, Hartmann pouch, Whipple procedure, -45 Hounsfield units, Tc-99m, Ga-68, PSA 4.5.",
        "Tc-99m MDP 25.3 mCi, 370 MBq, glucose 104 mg/dL, 62 minutes, 174 cm; PSA 2010 ng/mL; 45-year-old.",
        "Comparison: None. History: Breast cancer. Technique: Low dose CT. Findings were discussed with the patient.",
        "The patient is an 89-year-old man. May represent inflammation. March of uptake along the spine.",
        "Graves disease, Hashimoto thyroiditis, Barrett esophagus, Crohn disease, Paget disease of bone, Merkel cell.",
        "Siemens Biograph Vision, GE Discovery MI, Philips Vereos. Read by: Radiologist on call.",
        "Nodes in 3/12 and 4/15 biopsies; grade 3/4; Bethesda 2/6; 10.12 mm; SUV 12.10; 1.12.3.",
    ],
)
def test_clinical_language_stays(text: str) -> None:
    assert clean_text(text, days=DAYS, year=2021).text == text


def test_gold_reports_are_read_the_same(gold_dir: Path) -> None:
    rows = [
        json.loads(line) for name in ("sentences_dev", "reports_dev") for line in (gold_dir / f"{name}.jsonl").open()
    ]
    changed = [row["id"] for row in rows if findings(row["text"]) != findings(clean_text(row["text"], days=DAYS).text)]
    assert changed == []
    removed = sum(s.kind != "date" for row in rows for s in clean_text(row["text"], days=DAYS).spans)
    assert removed == 0, "there are no identities in them"


def phantom_report(seed: int) -> str:
    rng = np.random.default_rng(seed)
    grid = np.diag([-200.0, -200.0, 3.0, 1.0])
    pet = Volume(np.zeros((2, 2, 300), np.float32), grid, "SUVbw")
    lesions = []
    for n, at in enumerate(rng.permutation(len(SITES))[:5]):
        k, place = int(rng.integers(20, 280)), SITES[at]
        mask = np.zeros(pet.shape, bool)
        mask[0, 0, k] = True
        suv = float(np.float32(rng.uniform(2.0, 25.0)))
        pet.array[0, 0, k] = suv
        side = place.sides[int(rng.integers(len(place.sides)))]
        lesions.append(Lesion(f"L{n}", place.name, side, place.region, mask, 20.0, 4.2, suv, (0, 0, k), 300 - k))
    who = Patient("P1", "F", 60, 78.0, 174.0, "FDG", "2021-03-04", 351.4, 62.0)
    normal = {
        "liver": 2.9,
        "blood pool": 1.9,
        "left kidney": 12.1,
        "right kidney": 11.5,
        "bladder": 45.2,
        "brain": 11.3,
    }
    slices = {organ: 30 * n for n, organ in enumerate(normal, 1)}
    return write_report(PhantomExam("E1", who, pet, pet, tuple(lesions), normal, slices), rng).text


def test_phantom_reports_are_read_the_same_and_lose_nothing_but_dates() -> None:
    for seed in range(40):
        text = phantom_report(seed)
        cleaned = clean_text(text, JANE, days=DAYS, year=2021)
        assert findings(cleaned.text) == findings(text)
        assert {span.kind for span in cleaned.spans} <= {"date"}, cleaned.spans


ALPHABET = st.text(
    st.one_of(
        st.sampled_from(list(" \n\t.,:;/-()[]'’0123456789ADJMdoe^@x")),
        st.characters(codec="utf-8"),
    ),
    max_size=300,
)
PIECES = st.lists(
    st.sampled_from(
        [
            "Dr. ",
            "Jane ",
            "DOE",
            ", MD",
            "Signed by: ",
            "03/04/2021",
            "31/31/31",
            "MRN ",
            "123456",
            "[NAME]",
            "SUVmax 5.4 ",
            "slice 104",
            "van ",
            "\n",
            "Müller",
            "@",
            "x.y",
            "(555) 201-3344",
            "Hospital",
            "of ",
            "May ",
            "2020 ",
            "95-year-old",
            "O'",
            "-",
            "http://",
        ]
    ),
    max_size=40,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(st.one_of(ALPHABET, PIECES))
def test_any_text_is_cleaned_and_a_second_pass_takes_little_more(text: str) -> None:
    first = clean_text(text, JANE, days=0)
    assert all(0 <= a.start < a.end <= len(text) for a in first.spans)
    assert all(a.end <= b.start for a, b in zip(first.spans, first.spans[1:], strict=False))
    second = clean_text(first.text, JANE, days=0)
    third = clean_text(second.text, JANE, days=0)
    assert third.text == second.text or len(third.spans) <= len(second.spans)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30), st.integers(-4000, 4000))
def test_any_dicom_date_is_moved_or_refused(value: str, days: int) -> None:
    new = shift_dicom_date(value, days)
    assert new is None or len(new) == len(value.strip("\0 "))


def test_dicom_dates_keep_precision_and_time() -> None:
    assert shift_dicom_date("20240229", -7) == "20240222"
    assert shift_dicom_date("20240305235959.5+0100", -7) == "20240227235959.5+0100"
    assert shift_dicom_date("2024.03.05", -7) == "2024.02.27"
    assert shift_dicom_date("202403", -30) == "202402"
    assert shift_dicom_date("20241305", -7) is None
    assert shift_dicom_date("Doe", -7) is None


@pytest.mark.parametrize(
    "piece",
    ["Dr. Jane Doe ", "A", "1", "03/04/2021 ", "St. ", "van ", "Jane ", "1-", "Doe, ", "@", "of the General ", "00 ",
     "MRN: ", "Signed by: ", "5.", "O'", "x@y.", "[", "\n", "Q. ", "+1 ", "City, ", "Hospital of "],
)  # fmt: skip
def test_time_is_linear_in_the_text(piece: str) -> None:
    def seconds(size: int) -> float:
        text, times = piece * (size // len(piece)), []
        for _ in range(3):
            start = time.process_time()
            clean_text(text, JANE, days=DAYS)
            times.append(time.process_time() - start)
        return min(times)  # other processes can only make it longer

    gc.disable()  # it walks all that the tests before left behind
    try:
        short, long = max(seconds(3_000), 0.003), seconds(30_000)
    finally:
        gc.enable()
    assert long < 10 * 4 * short, f"{short:.3f} s for 3,000 characters, {long:.3f} s for 30,000"


GRETA = Identity(("Kowalczyk^Greta", "Long^Peter"), (), (), date(1951, 4, 3))


@pytest.mark.parametrize(
    "written",
    [
        "03APR1951", "3.IV.1951", "3 IV 1951", "3 iv 1951", "3/IV/51", "3-IV-51", "April third 1951",
        "April third, 1951", "the third of April 1951", "03·04·1951", "03/04'51", "03.04.'51",
        "April 3, '51", "April '51", "Apr-51", "IV.1951", "03 / 04 / 1951", "3Apr51", "twenty-first April 1951",
    ],
)  # fmt: skip
def test_dates_of_every_form_move(written: str) -> None:
    """No figure, numeral or word of the date stays as it was where it was; nothing around it changes."""
    new = clean_text(f"Surgery on {written}, left hilar node SUVmax 5.4, slice 104.", days=-5000, year=2021).text
    assert new.startswith("Surgery on ")
    assert new.endswith(", left hilar node SUVmax 5.4, slice 104.")
    assert written not in new
    assert "51" not in new.removesuffix(", left hilar node SUVmax 5.4, slice 104.")


@pytest.mark.parametrize(
    "written",
    ["4/51", "04.1951", "1951", "'51", "April '51", "03/04'51", "3-4-51", "3 IV 51", "third of April", "03·04·1951",
     "1951-04-03", "3 April, 1951"],
)  # fmt: skip
@pytest.mark.parametrize("word", ["DOB", "DOB:", "D.O.B. ", "born", "Born on", "date of birth:", "birthday", "geb."])
def test_behind_a_word_of_birth_every_form_goes(word: str, written: str) -> None:
    text = f"{word} {written}\n12 mm node SUVmax 5.4, slice 104."
    assert clean_text(text, days=DAYS, year=2021).text == f"{word} [BIRTH DATE]\n12 mm node SUVmax 5.4, slice 104."
    inline = f"{word} {written} 12 mm node SUVmax 5.4"
    assert clean_text(inline, days=DAYS, year=2021).text == f"{word} [BIRTH DATE] 12 mm node SUVmax 5.4"


@pytest.mark.parametrize(
    "text",
    [
        "Node SUVmax 4.1 (4/51). Series 3/12, slice 4/51, image 4/51; right hilar node 5.5 4/51; 4/51 SUVmax 3.2.",
        "Levels 2/IV/12 and III/IV, CN 3/IV/6, stage 3/IV, 10 IV 20 mg, contrast 100 ml IV 2 min, 3 x 2015 mm.",
        "a. 4 mm b. 3 cm node c. 2 mm. Metastases in 4/51 nodes; born at 38 weeks; born 38 weeks; newborn 12 days.",
        "Right/left hilar, liver/spleen, Hodgkin/Burkitt, ring-like, SUVmax/SUVmean 3/4, 12-14-16 mm.",
    ],
)
def test_indices_that_look_like_dates_stay(text: str) -> None:
    assert clean_text(text, GRETA, days=DAYS, year=2021).text == text


@pytest.mark.parametrize(
    "written",
    [
        "Kowalczyk-Nowak",
        "Kowalczyk/Nowak",
        "Kowalczyk - Nowak",
        "Nowak-Kowalczyk",
        "Nowak / Kowalczyk",
        "KOWALCZYK-NOWAK",
        "kowalczyk-nowak",
        "Kowalczyk-Long",
        "Greta Kowalczyk-Nowak",
        "G. Nowak-Kowalczyk",
        "Kowalczyk-Nowak-Wójcik",
        "Kowalczyk née Nowak",
        "Kowalczyk-van der Berg",
        "Kowalczyk/al-Hassan",
        "Kowalczyk–O'Brien",
        "Kowalczyk-Li",
    ],
)
def test_no_half_of_a_compound_name_stays(written: str) -> None:
    text = f"Seen with {written}: left node SUVmax 5.4, slice 104."
    assert clean_text(text, GRETA).text == "Seen with [NAME]: left node SUVmax 5.4, slice 104."


@pytest.mark.parametrize("written", ["mrs. kowalczyk - nowak", "MRS. KOWALCZYK/RICH", "Ms. Stone-Kowalczyk"])
def test_behind_a_title_a_joined_word_is_a_name(written: str) -> None:
    assert clean_text(f"{written} came", GRETA).text == f"{written.split()[0]} [NAME] came"


@pytest.mark.parametrize(
    "behind",
    ["/right axillary node", "-Left node", " - Right hilar node", " - Nodule in segment 4",
     " - Adenocarcinoma", "-like", "/SUVmax 5.4", " - SUVmax 5.4", "/Hodgkin lymphoma", "/liver",
     " - 4/51", "/CT", " - PET/CT"],
)  # fmt: skip
def test_what_is_no_name_stays_beside_a_known_one(behind: str) -> None:
    assert clean_text(f"Prior of Kowalczyk{behind} is known", GRETA).text == f"Prior of [NAME]{behind} is known"
