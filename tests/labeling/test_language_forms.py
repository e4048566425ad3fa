"""Sentences in other words than the annotated ones: each value ends as a slice or as a reason."""

from __future__ import annotations

import pytest
from petground.labeling.extract import extract_findings

L, R, B, N = "left", "right", "bilateral", None

FORMS: list[tuple[str, list[tuple[float, int | str, str | None]]]] = [
    # SUV in other dress
    ("Left hilar lymph node with SUV (max) 4.4, sl. 88.", [(4.4, 88, L)]),
    ("Left hilar lymph node, SUV_max: 4.4, image no. 88.", [(4.4, 88, L)]),
    ("Left hilar lymph node, maximal SUV is 4.4 at image 88.", [(4.4, 88, L)]),
    ("Left hilar lymph node (maximum standardized uptake value (SUVmax) of 4.4; axial image 88).", [(4.4, 88, L)]),
    ("Left hilar lymph node with a maximum SUV measuring approximately 4.4 g/ml (img 88).", [(4.4, 88, L)]),
    ("Faint right axillary uptake, SUV .9, slice 77.", [(0.9, 77, R)]),
    ("Left hilar lymph node. SUV max. 4.4. Slice 88.", [(4.4, 88, L)]),
    ("There is a right cervical node with a 7.2 SUVmax on axial slice 51.", [(7.2, 51, R)]),
    ("Right cervical node, SUVmax=7.2 [se 4, im 51].", [(7.2, 51, R)]),
    ("Right cervical node, SUVmax~7.2 (Se:4 Im:51).", [(7.2, 51, R)]),
    ("Right cervical node (IMA 4-51) SUV mac 7.2.", [(7.2, 51, R)]),
    ("Right cervical node, SUVmax 7.2, image 4/51.", [(7.2, 51, R)]),
    ("Right cervical node, SUVmax 7.2, cut 51.", [(7.2, 51, R)]),
    ("Right cervical node, SUVmax 7.2 (axial 51).", [(7.2, 51, R)]),
    ("Right cervical node, SUVmax 7.2, seen on image 51 of series 4.", [(7.2, 51, R)]),
    ("Right cervical node: SUV max 7.2, mean 4.4, slice 51.", [(7.2, 51, R), (4.4, "not_max", R)]),
    ("Right cervical node: SUVpeak 6.1, SUVmax 7.2 on slice 51.", [(6.1, "not_max", R), (7.2, 51, R)]),
    ("Right psoas lesion SULmax 3.3 on slice 200.", [(3.3, "not_max", R)]),
    ("Right cervical node with SUVmax of\n7.2 on axial slice\n51.", [(7.2, 51, R)]),
    # earlier and now
    ("Left adrenal nodule: 5.2 SUVmax currently (slice 160), formerly 8.8 SUVmax.", [(5.2, 160, L), (8.8, "prior", L)]),
    ("Left adrenal nodule, SUVmax decreased to 5.2 from 8.8 (slice 160).", [(5.2, 160, L), (8.8, "prior", L)]),
    ("Previously the left adrenal nodule had an SUVmax of 8.8; it is now 5.2 on slice 160.", [(8.8, "prior", L), (5.2, 160, L)]),
    ("On the prior exam, SUVmax was 8.8; today the left adrenal nodule shows SUVmax 5.2, slice 160.", [(8.8, "prior", N), (5.2, 160, L)]),
    ("Left adrenal nodule SUVmax 5.2 (8.8 on 03/04/2020), slice 160.", [(5.2, 160, L), (8.8, "prior", L)]),
    ("Left adrenal nodule SUVmax 5.2 (prior 8.8) on slice 160.", [(5.2, 160, L), (8.8, "prior", L)]),
    ("Left adrenal nodule, SUVmax 8.8 → 5.2, slice 160.", [(8.8, "prior", L), (5.2, 160, L)]),
    ("Left adrenal nodule on slice 160 has SUVmax of 5.2, compared to 8.8 on the exam of March 2020.", [(5.2, 160, L), (8.8, "prior", L)]),
    ("Left adrenal nodule on slice 160: current SUVmax 5.2, prior SUVmax 8.8.", [(5.2, 160, L), (8.8, "prior", L)]),
    ("The left adrenal nodule had an SUVmax of 8.8 on the previous study and now measures 5.2 (slice 160).", [(8.8, "prior", L), (5.2, 160, L)]),
    ("At baseline SUVmax was 8.8; now 5.2, left adrenal nodule, slice 160.", [(8.8, "prior", N), (5.2, 160, L)]),
    ("The left adrenal nodule showed an SUVmax of 5.2 on slice 160.", [(5.2, 160, L)]),
    ("Left adrenal nodule SUVmax was 5.2 (slice 160).", [(5.2, 160, L)]),
    ("Left adrenal nodule, SUVmax 5.2 on slice 160, unchanged since 2019.", [(5.2, 160, L)]),
    ("Left adrenal nodule, SUVmax 5.2, slice 160. It was 8.8 in June 2020.", [(5.2, 160, L), (8.8, "prior", L)]),
    ("Previously noted left adrenal nodule has SUVmax 5.2 (slice 160).", [(5.2, 160, L)]),
    ("Left adrenal nodule SUVmax increased by 2.1 to 5.2, slice 160.", [(5.2, 160, L)]),
    ("Left adrenal nodule SUVmax 5.2 (+2.1), slice 160.", [(5.2, 160, L)]),
    # reference, normal, negated
    ("Right iliac node with SUVmax 6.4 (slice 222), well above liver (SUVmax 2.9).", [(6.4, 222, R), (2.9, "reference", None)]),
    ("Uptake in a right iliac node greater than blood pool, SUVmax 6.4, slice 222.", [(6.4, 222, R)]),
    ("Aortic arch blood pool measures SUVmax 1.9.", [(1.9, "reference", None)]),
    ("The background hepatic SUVmax is 2.8 (slice 150).", [(2.8, "reference", None)]),
    ("Gluteal muscle SUVmax 0.9.", [(0.9, "reference", None)]),
    ("Normal-sized right iliac node with SUVmax 6.4 on slice 222.", [(6.4, 222, R)]),
    ("Right vallecula SUVmax 8.1 (slice 50), compared with 3.0 on the left.", [(8.1, 50, R), (3.0, "reference", L)]),
    ("Expected urinary excretion in the left ureter, SUVmax 22.0, slice 210.", [(22.0, "physiologic", L)]),
    ("Uptake in the left ovary with SUVmax 5.0 on slice 240 is likely physiologic.", [(5.0, "physiologic", L)]),
    ("Uptake in the left ovary with SUVmax 5.0 on slice 240 may be physiologic.", [(5.0, 240, L)]),
    ("Focal uptake, SUVmax 5.0, at the left ureterovesical junction on slice 240, not typical for physiologic excretion.", [(5.0, 240, L)]),
    ("The 1 cm right lung nodule (slice 99) shows no significant uptake, SUVmax 0.9.", [(0.9, "negated", R)]),
    ("The right lung nodule on slice 99 is without FDG avidity (SUVmax 0.9).", [(0.9, "negated", R)]),
    ("No abnormal uptake in the neck, but a right hilar node has SUVmax 4.5 on slice 103.", [(4.5, 103, R)]),
    ("Right hilar node SUVmax 4.5 (slice 103) with no enlargement.", [(4.5, 103, R)]),
    ("Lesions with SUV greater than 4.0 were segmented.", [(4.0, "threshold", None)]),
    ("Images are displayed with an SUV window of 0 to 10.", [(0.0, "threshold", None), (10.0, "threshold", None)]),
    ("Scattered bilateral lung nodules, SUVmax ranging from 1.5 to 3.9.", [(1.5, "range", B), (3.9, "range", B)]),
    ("Multiple mediastinal nodes with SUVmax up to 9.0, e.g. a right paratracheal node with SUVmax 9.0 on slice 97.", [(9.0, "range", None), (9.0, 97, R)]),
    # several lesions
    ("Right iliac node (slice 222, SUVmax 6.4) and left obturator node (slice 240, SUVmax 3.8).", [(6.4, 222, R), (3.8, 240, L)]),
    ("SUVmax 6.4 in a right iliac node (slice 222), SUVmax 3.8 in a left obturator node (slice 240).", [(6.4, 222, R), (3.8, 240, L)]),
    ("Right iliac node on slice 222 with SUVmax 6.4, left obturator node on slice 240 with SUVmax 3.8.", [(6.4, 222, R), (3.8, 240, L)]),
    ("Right iliac and left obturator nodes on slices 222 and 240 with SUVmax of 6.4 and 3.8, respectively.", [(6.4, 222, R), (3.8, 240, L)]),
    ("Right iliac node with SUVmax 6.4 and left obturator node with SUVmax 3.8, slices 222 and 240 respectively.", [(6.4, 222, R), (3.8, 240, L)]),
    ("On slice 222 there are a right iliac node (SUVmax 6.4) and a left iliac node (SUVmax 3.8).", [(6.4, 222, R), (3.8, 222, L)]),
    ("Right iliac node SUVmax 6.4 on slice 222; another on slice 226 has SUVmax 3.8.", [(6.4, 222, R), (3.8, 226, R)]),
    ("Right iliac node SUVmax 6.4; left obturator node SUVmax 3.8, slice 240.", [(6.4, "no_slice", R), (3.8, 240, L)]),
    ("Right iliac node, SUVmax 6.4 on slice 222 and 3.8 on the prior.", [(6.4, 222, R), (3.8, "prior", R)]),
    # slices
    ("Right iliac mass spanning slices 210-230 (maximum at slice 222), SUVmax 6.4.", [(6.4, 222, R)]),
    ("Right iliac mass, SUVmax 6.4, PET image 222, CT image 444.", [(6.4, 222, R)]),
    ("Right iliac mass, SUVmax 6.4, images 210 through 230.", [(6.4, "ambiguous", R)]),
    ("Right iliac mass, SUVmax 6.4, on the MIP image 12.", [(6.4, "not_axial", R)]),
    ("Right iliac mass, SUVmax 6.4, axial image 222, coronal image 101.", [(6.4, 222, R)]),
    ("Right iliac mass, SUVmax 6.4, at table position 812 mm.", [(6.4, "no_slice", R)]),
    # neighbours and headings
    ("A mass is centred in the right iliac fossa on slice 222. The SUVmax is 6.4.", [(6.4, 222, R)]),
    ("A right iliac mass has an SUVmax of 6.4. It is best seen on slice 222.", [(6.4, 222, R)]),
    ("Left breast: 2 cm mass, SUVmax 6.4, slice 130. Axillary node, SUVmax 3.8, slice 111.", [(6.4, 130, L), (3.8, 111, L)]),
    ("Right breast mass, SUVmax 6.4, slice 130. Ipsilateral axillary node, SUVmax 3.8, slice 111.", [(6.4, 130, R), (3.8, 111, R)]),
    ("Station 4L node, SUVmax 6.4, slice 100. 10R node, SUVmax 3.8, slice 105.", [(6.4, 100, L), (3.8, 105, R)]),
    ("RUL nodule SUVmax 6.4 slice 90, LLL nodule SUVmax 3.8 slice 140.", [(6.4, 90, R), (3.8, 140, L)]),
    ("Left gastric node, SUVmax 6.4, slice 150.", [(6.4, 150, N)]),
    ("T11 vertebral body, SUVmax 6.4, slice 160.", [(6.4, 160, N)]),
    ("LEFT NECK:\n1. Level II node, SUVmax 6.4, slice 50.\n2. Level III node, SUVmax 3.8, slice 60.", [(6.4, 50, L), (3.8, 60, L)]),
    # numbers that are none
    ("Right iliac node 1.4 x 0.9 cm, MTV 12.4 mL, TLG 55.0, SUVmax 6.4, slice 222.", [(6.4, 222, R)]),
    ("Right iliac node, SUVmax 6.4 (slice 222), tumor-to-liver ratio 2.2.", [(6.4, 222, R)]),
    ("PSA 3.4 ng/mL. Right iliac node, SUVmax 6.4, slice 222, 35 HU.", [(6.4, 222, R)]),
]


@pytest.mark.parametrize(("text", "want"), FORMS, ids=[str(n) for n in range(len(FORMS))])
def test_form(text: str, want: list[tuple[float, int | str, str | None]]) -> None:
    found = extract_findings(text)
    assert [(f.suv, f.slice if f.status == "positive" else f.reason) for f in found] == [w[:2] for w in want]
    for finding, (_, fate, side) in zip(found, want, strict=True):
        if isinstance(fate, int):
            assert finding.laterality == side
