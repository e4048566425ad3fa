"""Sentences in other words than the annotated ones: each value ends as a slice or as a reason."""

# ruff: noqa: E501  (a sentence stays on its line)
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
    ("Left axillary node, SUVmax 5.5, slice 104, Lugano grade (4/5).", [(5.5, 104, L)]),
    ("Right level II node at the C3 level (3/104), SUVmax 7.2.", [(7.2, 104, R)]),
    # earlier and now
    ("Left adrenal nodule: 5.2 SUVmax currently (slice 160), formerly 8.8 SUVmax.", [(5.2, 160, L), (8.8, "prior", L)]),
    ("Left adrenal nodule, SUVmax decreased to 5.2 from 8.8 (slice 160).", [(5.2, 160, L), (8.8, "prior", L)]),
    (
        "Previously the left adrenal nodule had an SUVmax of 8.8; it is now 5.2 on slice 160.",
        [(8.8, "prior", L), (5.2, 160, L)],
    ),
    (
        "On the prior exam, SUVmax was 8.8; today the left adrenal nodule shows SUVmax 5.2, slice 160.",
        [(8.8, "prior", N), (5.2, 160, L)],
    ),
    ("Left adrenal nodule SUVmax 5.2 (8.8 on 03/04/2020), slice 160.", [(5.2, 160, L), (8.8, "prior", L)]),
    ("Left adrenal nodule SUVmax 5.2 (prior 8.8) on slice 160.", [(5.2, 160, L), (8.8, "prior", L)]),
    ("Left adrenal nodule, SUVmax 8.8 → 5.2, slice 160.", [(8.8, "prior", L), (5.2, 160, L)]),
    (
        "Left adrenal nodule on slice 160 has SUVmax of 5.2, compared to 8.8 on the exam of March 2020.",
        [(5.2, 160, L), (8.8, "prior", L)],
    ),
    ("Left adrenal nodule on slice 160: current SUVmax 5.2, prior SUVmax 8.8.", [(5.2, 160, L), (8.8, "prior", L)]),
    (
        "The left adrenal nodule had an SUVmax of 8.8 on the previous study and now measures 5.2 (slice 160).",
        [(8.8, "prior", L), (5.2, 160, L)],
    ),
    ("At baseline SUVmax was 8.8; now 5.2, left adrenal nodule, slice 160.", [(8.8, "prior", N), (5.2, 160, L)]),
    ("The left adrenal nodule showed an SUVmax of 5.2 on slice 160.", [(5.2, 160, L)]),
    ("Left adrenal nodule SUVmax was 5.2 (slice 160).", [(5.2, 160, L)]),
    ("Left adrenal nodule, SUVmax 5.2 on slice 160, unchanged since 2019.", [(5.2, 160, L)]),
    ("Left adrenal nodule, SUVmax 5.2, slice 160. It was 8.8 in June 2020.", [(5.2, 160, L), (8.8, "prior", L)]),
    ("Previously noted left adrenal nodule has SUVmax 5.2 (slice 160).", [(5.2, 160, L)]),
    ("Left adrenal nodule SUVmax increased by 2.1 to 5.2, slice 160.", [(5.2, 160, L)]),
    ("Left adrenal nodule SUVmax 5.2 (+2.1), slice 160.", [(5.2, 160, L)]),
    # reference, normal, negated
    (
        "Right iliac node with SUVmax 6.4 (slice 222), well above liver (SUVmax 2.9).",
        [(6.4, 222, R), (2.9, "reference", None)],
    ),
    ("Uptake in a right iliac node greater than blood pool, SUVmax 6.4, slice 222.", [(6.4, 222, R)]),
    ("Aortic arch blood pool measures SUVmax 1.9.", [(1.9, "reference", None)]),
    ("The background hepatic SUVmax is 2.8 (slice 150).", [(2.8, "reference", None)]),
    ("Gluteal muscle SUVmax 0.9.", [(0.9, "reference", None)]),
    ("Normal-sized right iliac node with SUVmax 6.4 on slice 222.", [(6.4, 222, R)]),
    ("Right vallecula SUVmax 8.1 (slice 50), compared with 3.0 on the left.", [(8.1, 50, R), (3.0, "reference", L)]),
    ("Expected urinary excretion in the left ureter, SUVmax 22.0, slice 210.", [(22.0, "physiologic", L)]),
    ("Uptake in the left ovary with SUVmax 5.0 on slice 240 is likely physiologic.", [(5.0, "physiologic", L)]),
    ("Uptake in the left ovary with SUVmax 5.0 on slice 240 may be physiologic.", [(5.0, 240, L)]),
    (
        "Focal uptake, SUVmax 5.0, at the left ureterovesical junction on slice 240, not typical for physiologic excretion.",
        [(5.0, 240, L)],
    ),
    ("The 1 cm right lung nodule (slice 99) shows no significant uptake, SUVmax 0.9.", [(0.9, "negated", R)]),
    ("The right lung nodule on slice 99 is without FDG avidity (SUVmax 0.9).", [(0.9, "negated", R)]),
    ("No abnormal uptake in the neck, but a right hilar node has SUVmax 4.5 on slice 103.", [(4.5, 103, R)]),
    ("Right hilar node SUVmax 4.5 (slice 103) with no enlargement.", [(4.5, 103, R)]),
    ("Lesions with SUV greater than 4.0 were segmented.", [(4.0, "threshold", None)]),
    ("Images are displayed with an SUV window of 0 to 10.", [(0.0, "threshold", None), (10.0, "threshold", None)]),
    ("Scattered bilateral lung nodules, SUVmax ranging from 1.5 to 3.9.", [(1.5, "range", B), (3.9, "range", B)]),
    (
        "Multiple mediastinal nodes with SUVmax up to 9.0, e.g. a right paratracheal node with SUVmax 9.0 on slice 97.",
        [(9.0, "range", None), (9.0, 97, R)],
    ),
    # several lesions
    (
        "Right iliac node (slice 222, SUVmax 6.4) and left obturator node (slice 240, SUVmax 3.8).",
        [(6.4, 222, R), (3.8, 240, L)],
    ),
    (
        "SUVmax 6.4 in a right iliac node (slice 222), SUVmax 3.8 in a left obturator node (slice 240).",
        [(6.4, 222, R), (3.8, 240, L)],
    ),
    (
        "Right iliac node on slice 222 with SUVmax 6.4, left obturator node on slice 240 with SUVmax 3.8.",
        [(6.4, 222, R), (3.8, 240, L)],
    ),
    (
        "Right iliac and left obturator nodes on slices 222 and 240 with SUVmax of 6.4 and 3.8, respectively.",
        [(6.4, 222, R), (3.8, 240, L)],
    ),
    (
        "Right iliac node with SUVmax 6.4 and left obturator node with SUVmax 3.8, slices 222 and 240 respectively.",
        [(6.4, 222, R), (3.8, 240, L)],
    ),
    (
        "On slice 222 there are a right iliac node (SUVmax 6.4) and a left iliac node (SUVmax 3.8).",
        [(6.4, 222, R), (3.8, 222, L)],
    ),
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
    (
        "Left breast: 2 cm mass, SUVmax 6.4, slice 130. Axillary node, SUVmax 3.8, slice 111.",
        [(6.4, 130, L), (3.8, 111, L)],
    ),
    (
        "Right breast mass, SUVmax 6.4, slice 130. Ipsilateral axillary node, SUVmax 3.8, slice 111.",
        [(6.4, 130, R), (3.8, 111, R)],
    ),
    ("Station 4L node, SUVmax 6.4, slice 100. 10R node, SUVmax 3.8, slice 105.", [(6.4, 100, L), (3.8, 105, R)]),
    ("RUL nodule SUVmax 6.4 slice 90, LLL nodule SUVmax 3.8 slice 140.", [(6.4, 90, R), (3.8, 140, L)]),
    ("Left gastric node, SUVmax 6.4, slice 150.", [(6.4, 150, N)]),
    ("T11 vertebral body, SUVmax 6.4, slice 160.", [(6.4, 160, N)]),
    (
        "LEFT NECK:\n1. Level II node, SUVmax 6.4, slice 50.\n2. Level III node, SUVmax 3.8, slice 60.",
        [(6.4, 50, L), (3.8, 60, L)],
    ),
    # numbers that are none
    ("Right iliac node 1.4 x 0.9 cm, MTV 12.4 mL, TLG 55.0, SUVmax 6.4, slice 222.", [(6.4, 222, R)]),
    ("Right iliac node, SUVmax 6.4 (slice 222), tumor-to-liver ratio 2.2.", [(6.4, 222, R)]),
    ("PSA 3.4 ng/mL. Right iliac node, SUVmax 6.4, slice 222, 35 HU.", [(6.4, 222, R)]),
    # a second round, written after the first was right
    ("Right adrenal nodule shows S.U.V. max of 6.2 (im. 155).", [(6.2, 155, R)]),
    ("A 12 mm right adrenal nodule [image 3:155] is FDG avid with SUV-Max: 6.2.", [(6.2, 155, R)]),
    ("Maximum SUV in the right adrenal nodule is 6.2, image 155.", [(6.2, 155, R)]),
    ("Max SUV of the right adrenal nodule at slice 155 measures 6.2.", [(6.2, 155, R)]),
    ("The right adrenal nodule (IM 155) demonstrates uptake with a peak SUV of 6.2.", [(6.2, "not_max", R)]),
    ("Right adrenal nodule, maximum standard uptake value 6.2, axial PET slice 155.", [(6.2, 155, R)]),
    ("Right adrenal nodule SUV6.2, slice155.", [(6.2, 155, R)]),
    ("Right adrenal nodule: SUVmax 6, slice 155", [(6.0, 155, R)]),
    ("Right adrenal nodule (SUV 6.2; slc 155).", [(6.2, 155, R)]),
    ("Right adrenal nodule (SUVmax 6.2, CT axial 155).", [(6.2, 155, R)]),
    ("Right adrenal nodule, SUVmax 6.2 (S4 I155).", [(6.2, 155, R)]),
    ("Right adrenal nodule, SUVmax 6.2 (series/image 4/155).", [(6.2, 155, R)]),
    ("Right adrenal nodule, SUVmax 6.2 (image 155/263).", [(6.2, 155, R)]),
    ("Right adrenal nodule with SUVmax 6.2, volume 3.4 mL, slice 155.", [(6.2, 155, R)]),
    ("Right adrenal nodule has an SUVmax of 6.2 and SUVmean of 3.9 (slice 155).", [(6.2, 155, R), (3.9, "not_max", R)]),
    ("Right adrenal nodule SUVmax/SUVmean 6.2/3.9, slice 155.", [(6.2, 155, R), (3.9, "not_max", R)]),
    (
        "Right adrenal nodule 6.2 SUV on slice 155, left adrenal nodule 4.4 SUV on slice 158.",
        [(6.2, 155, R), (4.4, 158, L)],
    ),
    (
        "The SUVmax of the right adrenal nodule has dropped from 9.9 to 6.2; slice 155.",
        [(9.9, "prior", R), (6.2, 155, R)],
    ),
    ("Right adrenal nodule SUVmax of 6.2 on slice 155 (prior study: 9.9).", [(6.2, 155, R), (9.9, "prior", R)]),
    ("Right adrenal nodule, SUVmax 6.2 today vs. 9.9 on 1/2/20, slice 155.", [(6.2, 155, R), (9.9, "prior", R)]),
    ("Right adrenal nodule: today 6.2, prior 9.9 (SUVmax), slice 155.", [(6.2, 155, R), (9.9, "prior", R)]),
    (
        "Outside PET of May 2019 reported SUVmax 9.9 in the right adrenal; current SUVmax is 6.2 on slice 155.",
        [(9.9, "prior", R), (6.2, 155, R)],
    ),
    (
        "Right adrenal nodule with SUVmax 6.2 on slice 155, unchanged compared with the prior exam (SUVmax 6.1 on slice 150).",
        [(6.2, 155, R), (6.1, "prior", R)],
    ),
    ("The right adrenal nodule is new since the prior study with SUVmax 6.2 on slice 155.", [(6.2, 155, R)]),
    ("Compared with the prior study the right adrenal nodule is more avid, SUVmax 6.2, slice 155.", [(6.2, 155, R)]),
    (
        "Compared with the prior study of 3/4/2020, the right adrenal nodule has SUVmax 6.2 on slice 155.",
        [(6.2, 155, R)],
    ),
    ("Right adrenal nodule, SUVmax of 9.9 at baseline and 6.2 now (slice 155).", [(9.9, "prior", R), (6.2, 155, R)]),
    ("Right adrenal nodule, SUVmax 9.9 in 2019 and 6.2 on this exam (slice 155).", [(9.9, "prior", R), (6.2, 155, R)]),
    ("Right adrenal nodule SUVmax 6.2 (was 9.9), slice 155.", [(6.2, 155, R), (9.9, "prior", R)]),
    ("Right adrenal nodule (slice 155): SUVmax 6.2 [9.9].", [(6.2, 155, R), (9.9, "prior", R)]),
    ("Right adrenal nodule SUVmax 6.2 on slice 155, up from 3.3.", [(6.2, 155, R), (3.3, "prior", R)]),
    ("Right adrenal nodule: SUVmax 9.9 => 6.2 (slice 155).", [(9.9, "prior", R), (6.2, 155, R)]),
    ("Right adrenal nodule. SUVmax 6.2. Image 155. Previously 9.9.", [(6.2, 155, R), (9.9, "prior", R)]),
    ("Right adrenal nodule with SUVmax 6.2 (slice 155), an increase of 2.4 since the last exam.", [(6.2, 155, R)]),
    ("Right adrenal nodule with SUVmax 6.2 (slice 155), a 38% decrease.", [(6.2, 155, R)]),
    ("Liver SUVmean 2.2, SUVmax 3.0.", [(2.2, "reference", N), (3.0, "reference", N)]),
    ("Mediastinal blood pool activity (aortic arch): SUVmax 2.0.", [(2.0, "reference", N)]),
    ("For reference, normal liver SUVmax is 3.0 and blood pool 2.0.", [(3.0, "reference", N), (2.0, "reference", N)]),
    ("Right adrenal nodule SUVmax 6.2 on slice 155 (liver 3.0).", [(6.2, 155, R), (3.0, "reference", N)]),
    ("Right adrenal nodule SUVmax 6.2 on slice 155, higher than liver at 3.0.", [(6.2, 155, R), (3.0, "reference", N)]),
    (
        "Right adrenal nodule uptake (slice 155) exceeds that of liver, with SUVmax 6.2 versus 3.0.",
        [(6.2, 155, R), (3.0, "reference", N)],
    ),
    (
        "Right parotid focus SUVmax 6.2 (slice 35) compared to the normal left parotid at 2.4.",
        [(6.2, 35, R), (2.4, "reference", L)],
    ),
    (
        "Asymmetric uptake in the right tonsil (SUVmax 6.2 on slice 45) relative to the left (SUVmax 3.9).",
        [(6.2, 45, R), (3.9, "reference", L)],
    ),
    ("Spill of urine on the right thigh skin, SUVmax 12.0, slice 300.", [(12.0, "physiologic", R)]),
    ("Left ventricular myocardium SUVmax 11.0, slice 120.", [(11.0, "physiologic", L)]),
    ("Intense brain uptake, SUVmax 14.0, is expected.", [(14.0, "physiologic", N)]),
    ("Normal excretion into the right renal pelvis with SUVmax 33.0 on slice 180.", [(33.0, "physiologic", R)]),
    ("Diffuse gastric uptake, SUVmax 5.0, slice 150, probably gastritis.", [(5.0, 150, N)]),
    ("Diffusely increased bone marrow uptake (SUVmax 5.0) from recent G-CSF.", [(5.0, "physiologic", N)]),
    ("Activity in the thymus, SUVmax 4.0 on slice 100, compatible with thymic rebound.", [(4.0, "physiologic", N)]),
    ("4 mm left lung nodule on slice 110 is below PET resolution, SUVmax 0.7.", [(0.7, 110, L)]),
    ("Left lung nodule (slice 110) is not hypermetabolic, with SUVmax of 0.7.", [(0.7, "negated", L)]),
    ("No hypermetabolism in the left lung nodule (SUVmax 0.7, slice 110).", [(0.7, "negated", L)]),
    ("The left lung nodule (slice 110) does not show increased uptake (SUVmax 0.7).", [(0.7, "negated", L)]),
    ("The left lung nodule on slice 110 has SUVmax 3.7, without associated adenopathy.", [(3.7, 110, L)]),
    ("There is no evidence of recurrence at the left bed (SUVmax 1.3, slice 110).", [(1.3, "negated", L)]),
    ("Deauville criteria were used with an SUV cutoff of 4.0.", [(4.0, "threshold", N)]),
    ("A lesion would be called positive if its SUV exceeded 4.0.", [(4.0, "threshold", N)]),
    ("Multiple liver metastases, SUVmax 5.5-9.7.", [(5.5, "range", N), (9.7, "range", N)]),
    ("Several mediastinal nodes with SUVs of 3 to 5.", [(3.0, "range", N), (5.0, "range", N)]),
    (
        "Multiple bone metastases with SUVmax as high as 18.4, for example in T8 (SUVmax 18.4, slice 140).",
        [(18.4, "range", N), (18.4, 140, N)],
    ),
    ("Multiple avid nodes, the largest a 2 cm right hilar node with SUVmax 9.1 on slice 104.", [(9.1, 104, R)]),
    ("Left iliac mass on images 210, 215 and 220 with SUVmax 8.8.", [(8.8, "ambiguous", L)]),
    ("Left iliac mass from slice 210 to slice 230, most intense on slice 222, SUVmax 8.8.", [(8.8, 222, L)]),
    ("Left iliac mass, SUVmax 8.8 (sagittal image 44, axial image 222).", [(8.8, 222, L)]),
    ("Left iliac mass, SUVmax 8.8, coronal slice 77.", [(8.8, "not_axial", L)]),
    ("Left iliac mass, SUVmax 8.8, z = -412.5 mm.", [(8.8, "no_slice", L)]),
    ("Left iliac mass, SUVmax 8.8, 222.", [(8.8, "no_slice", L)]),
    (
        "Hypermetabolic nodes: right level II (SUVmax 5.1, slice 50), right level III (SUVmax 4.2, slice 61) and left level V (SUVmax 3.3, slice 70).",
        [(5.1, 50, R), (4.2, 61, R), (3.3, 70, L)],
    ),
    (
        "Nodes in the right neck at level II, SUVmax 5.1, slice 50, and at level III, SUVmax 4.2, slice 61.",
        [(5.1, 50, R), (4.2, 61, R)],
    ),
    ("Avid right level II and III nodes (SUVmax 5.1 and 4.2; slices 50 and 61).", [(5.1, 50, R), (4.2, 61, R)]),
    ("Right and left adrenal nodules on slices 155 and 158 have SUVmax 6.2 and 4.4.", [(6.2, 155, R), (4.4, 158, L)]),
    (
        "There are bilateral adrenal nodules: right SUVmax 6.2 (slice 155), left SUVmax 4.4 (slice 158).",
        [(6.2, 155, R), (4.4, 158, L)],
    ),
    (
        "Bilateral adrenal nodules with SUVmax 6.2 on the right (slice 155) and 4.4 on the left (slice 158).",
        [(6.2, 155, R), (4.4, 158, L)],
    ),
    (
        "Both adrenal nodules are seen on slice 155: SUVmax 6.2 on the right and 4.4 on the left.",
        [(6.2, 155, R), (4.4, 155, L)],
    ),
    (
        "Right adrenal nodule on slice 155 with SUVmax 6.2 while the left adrenal nodule has SUVmax 4.4.",
        [(6.2, 155, R), (4.4, "no_slice", L)],
    ),
    ("Right adrenal nodule (155, SUVmax 6.2).", [(6.2, "no_slice", R)]),
    (
        "A right adrenal nodule is present (image 155). Its maximum SUV is 6.2, compared to 9.9 on the previous examination.",
        [(6.2, 155, R), (9.9, "prior", R)],
    ),
    ("A right adrenal nodule is present on image 155. This measures 1.2 cm. SUVmax is 6.2.", [(6.2, 155, R)]),
    ("A right adrenal nodule has SUVmax 6.2. See image 155.", [(6.2, 155, R)]),
    ("Right adrenal nodule on image 155. Left lung nodule with SUVmax 3.1.", [(3.1, "no_slice", L)]),
    (
        "In the right breast, there is a mass with SUVmax 6.2 (slice 130). An ipsilateral axillary node has SUVmax 3.0 (slice 112). A contralateral axillary node has SUVmax 2.7 (slice 113).",
        [(6.2, 130, R), (3.0, 112, R), (2.7, 113, L)],
    ),
    ("Mass centered to the left of midline in the mesentery, SUVmax 6.2, slice 200.", [(6.2, 200, L)]),
    ("Subcarinal (station 7) node SUVmax 6.2, slice 112.", [(6.2, 112, N)]),
    ("Lt. supraclavicular LN SUVmax 6.2, sl 78; Rt. axillary LN SUVmax 3.1, sl 90.", [(6.2, 78, L), (3.1, 90, R)]),
    ("L supraclavicular node SUVmax 6.2, slice 78.", [(6.2, 78, L)]),
    ("Mass in the right lobe of the liver, SUVmax 6.2, slice 160.", [(6.2, 160, R)]),
    (
        "CHEST\nRUL: 1.2 cm nodule, SUVmax 6.2, slice 90.\nLLL: 0.8 cm nodule, SUVmax 2.8, slice 140.",
        [(6.2, 90, R), (2.8, 140, L)],
    ),
    (
        "1) Right hilar node; SUVmax = 6.2; slice = 104\n2) Left hilar node; SUVmax = 3.1; slice = 106",
        [(6.2, 104, R), (3.1, 106, L)],
    ),
    (
        "Lesion 1: right hilum | SUVmax 6.2 | slice 104\nLesion 2: left hilum | SUVmax 3.1 | slice 106",
        [(6.2, 104, R), (3.1, 106, L)],
    ),
    ("Right hilar node, SUVmax: 6.2, Slice: 104, Size: 1.2 cm", [(6.2, 104, R)]),
    ("Site: left hilum. SUVmax: 6.2. Slice: 104.", [(6.2, 104, L)]),
    (
        "Findings: uptake in left hilum slice 104 suv 6.2 right hilum slice 106 suv 3.1 no other disease",
        [(6.2, 104, L), (3.1, 106, R)],
    ),
    ("Impression: 1. Right hilar node, SUVmax 6.2 (slice 104), suspicious.", [(6.2, 104, R)]),
    (
        "FINDINGS: Right hilar node, SUVmax 6.2 (slice 104). Left hilar node, SUVmax 6.2 (slice 106). IMPRESSION: Hilar nodes, SUVmax 6.2.",
        [(6.2, 104, R), (6.2, 106, L), (6.2, "repeat", N)],
    ),
    (
        "INDICATION: Known nodule with SUV of 3.3 on outside PET. FINDINGS: Right hilar node, SUVmax 6.2 (slice 104).",
        [(3.3, "prior", N), (6.2, 104, R)],
    ),
    (
        "The hottest lesion, in the left ilium on slice 240, has SUVmax 12.0; the remaining bone lesions range from SUVmax 3.0 to 8.0.",
        [(12.0, 240, L), (3.0, "range", N), (8.0, "range", N)],
    ),
    ("PSMA-avid right seminal vesicle (SUVmax 14, axial image 270) with PSA of 3.2.", [(14.0, 270, R)]),
    (
        "Focal FDG uptake with SUVmax of 6.2 is seen in the left lobe of the thyroid on image 70, for which ultrasound is advised.",
        [(6.2, 70, L)],
    ),
    (
        "Uptake in the left lung base on image 140 has SUVmax of 2.9, previously 2.7 on image 138, likely atelectasis.",
        [(2.9, 140, L), (2.7, "prior", L)],
    ),
    (
        "Left hilar node 1.2 cm, previously 1.8 cm, SUVmax 3.4 (slice 110), previously 8.8.",
        [(3.4, 110, L), (8.8, "prior", L)],
    ),
    (
        "Left hilar node has decreased in size (1.2 cm vs 1.8 cm) and avidity (SUVmax 3.4 vs 8.8), slice 110.",
        [(3.4, 110, L), (8.8, "prior", L)],
    ),
    ("Tumor thrombus in the left renal vein, SUVmax 6.2, slice 180.", [(6.2, 180, N)]),
    ("Misregistered uptake over the left diaphragm, SUVmax 4.1 at image 133 of 299.", [(4.1, 133, L)]),
    ("Left inguinal node (slice 280) SUVmax 2.1, not pathologically enlarged.", [(2.1, 280, L)]),
    ("Left inguinal node, SUV 2.1, slice 280, nonspecific and likely reactive.", [(2.1, 280, L)]),
    # a third round
    (
        "Impression: Interval progression with new left adrenal metastasis (SUVmax 7.7, image 160 of series 3).",
        [(7.7, 160, L)],
    ),
    (
        "The left upper lobe mass measures 3.1 x 2.2 cm (axial image 88), previously 4.0 x 3.0 cm. SUVmax is 6.6, previously 10.1.",
        [(6.6, 88, L), (10.1, "prior", L)],
    ),
    ("Hypermetabolic focus, right posterior acetabulum: SUVmax 4.9 / slice 260.", [(4.9, 260, R)]),
    ("Right posterior acetabulum - SUVmax 4.9 - slice 260.", [(4.9, 260, R)]),
    ("Right posterior acetabulum, slice 260 - SUVmax - 4.9", [(4.9, 260, R)]),
    (
        "Slice 260: right acetabular focus, SUVmax 4.9.\nSlice 271: left ischial focus, SUVmax 3.6.",
        [(4.9, 260, R), (3.6, 271, L)],
    ),
    (
        "The right acetabular focus, best appreciated on fused axial image number 260, reaches an SUVmax of 4.9.",
        [(4.9, 260, R)],
    ),
    ("Right acetabular focus SUVmax 4.9 (3/260).", [(4.9, 260, R)]),
    ("Right acetabular focus SUVmax 4.9 (im 260, se 3).", [(4.9, 260, R)]),
    ("Right acetabular focus SUVmax 4.9, image: 260.", [(4.9, 260, R)]),
    ("Right acetabular focus (image 260) SUVmax of 4.9 g/mL (body weight).", [(4.9, 260, R)]),
    ("Right acetabular focus with SUVmax 4.9 on slices 260 to 266.", [(4.9, "ambiguous", R)]),
    ("Right acetabular focus with SUVmax 4.9 on slice 260 (best) and 262.", [(4.9, 260, R)]),
    ("Right acetabular focus, SUVmax 4.9 (PET slice 130; corresponding CT slice 260).", [(4.9, 130, R)]),
    ("Right acetabular focus, SUVmax 4.9 (CT 260, PET 130).", [(4.9, 130, R)]),
    ("Right acetabular focus, SUVmax 4.9, coronal 101.", [(4.9, "not_axial", R)]),
    (
        "Retrospectively, the right acetabular focus had an SUVmax of 3.0 on the prior exam; it now has 4.9 on slice 260.",
        [(3.0, "prior", R), (4.9, 260, R)],
    ),
    ("SUVmax has gone from 3.0 to 4.9 in the right acetabular focus (slice 260).", [(3.0, "prior", R), (4.9, 260, R)]),
    ("The SUVmax of the right acetabular focus is stable at 4.9 (slice 260).", [(4.9, 260, R)]),
    (
        "Right acetabular focus with stable SUVmax of 4.9 (slice 260) (4.8 previously).",
        [(4.9, 260, R), (4.8, "prior", R)],
    ),
    ("Right acetabular focus: SUVmax 4.9 (slice 260), nadir 2.0 on 5/5/2019.", [(4.9, 260, R), (2.0, "prior", R)]),
    (
        "The right acetabular focus has SUVmax 4.9 on slice 260; on the 2018 examination it was 3.0.",
        [(4.9, 260, R), (3.0, "prior", R)],
    ),
    ("Prior SUVmax 3.0, current SUVmax 4.9, right acetabulum, slice 260.", [(3.0, "prior", R), (4.9, 260, R)]),
    (
        "Compared to 02/2020 (SUVmax 3.0), the right acetabular focus is now hotter (SUVmax 4.9, slice 260).",
        [(3.0, "prior", None), (4.9, 260, R)],
    ),
    (
        "Right acetabular focus, SUVmax 4.9, slice 260, above the mediastinal blood pool reference of 1.9.",
        [(4.9, 260, R), (1.9, "reference", None)],
    ),
    ("Reference SUVs: liver 2.8, blood pool 1.9.", [(2.8, "reference", None), (1.9, "reference", None)]),
    ("Liver: mean SUV 2.2.", [(2.2, "reference", None)]),
    ("Phantom check SUV 1.02.", [(1.02, "reference", None)]),
    (
        "Left tonsil SUVmax 9.0 on slice 45, right tonsil SUVmax 3.9 for comparison.",
        [(9.0, 45, L), (3.9, "reference", R)],
    ),
    (
        "Left breast uptake SUVmax 4.9 (slice 128) is greater than in the contralateral breast (SUVmax 1.9).",
        [(4.9, 128, L), (1.9, "reference", R)],
    ),
    ("Urine contamination on the perineum, SUVmax 14.0, slice 320.", [(14.0, "physiologic", None)]),
    ("Symmetric brown adipose tissue uptake, SUVmax 9.0 at slice 70.", [(9.0, "physiologic", None)]),
    ("Kidneys SUVmax 40.0.", [(40.0, "physiologic", None)]),
    (
        "A focus in the left kidney lower pole, SUVmax 9.8 on slice 190, is suspicious for a renal neoplasm.",
        [(9.8, 190, L)],
    ),
    ("Previously avid left axillary node is no longer avid (SUVmax 1.0, slice 95).", [(1.0, "negated", L)]),
    (
        "The left axillary node does not demonstrate FDG uptake above background (SUVmax 1.0, slice 95).",
        [(1.0, "negated", L)],
    ),
    ("Negative for FDG-avid disease; left axillary node SUVmax 1.0.", [(1.0, "no_slice", L)]),
    ("No suspicious nodes. Left axillary node, SUVmax 3.1, slice 95, is likely reactive.", [(3.1, 95, L)]),
    ("Left axillary node with SUVmax 3.1 on slice 95 without fatty hilum.", [(3.1, 95, L)]),
    ("Left axillary node with SUVmax 3.1 on slice 95, not present on the prior exam.", [(3.1, 95, L)]),
    ("SUV values above 2.5 were considered abnormal.", [(2.5, "threshold", None)]),
    ("Isocontour at 41% and SUV 4.0 thresholds were applied.", [(4.0, "threshold", None)]),
    ("Multiple left axillary nodes, SUVmax of up to 5.5 (slice 95).", [(5.5, "range", L)]),
    ("Left axillary node with SUVmax of up to 5.5 (slice 95).", [(5.5, 95, L)]),
    ("Innumerable lung nodules with maximum SUVs between 1.2 and 6.0.", [(1.2, "range", None), (6.0, "range", None)]),
    ("Two left axillary nodes (slices 95 and 99), SUVmax 5.5 and 4.1 respectively.", [(5.5, 95, L), (4.1, 99, L)]),
    ("Two left axillary nodes, SUVmax 5.5 (slice 95) and 4.1 (slice 99).", [(5.5, 95, L), (4.1, 99, L)]),
    ("Two left axillary nodes with SUVmax of 5.5 and 4.1 are both on slice 95.", [(5.5, 95, L), (4.1, 95, L)]),
    ("Left axillary node SUVmax 5.5 (95).", [(5.5, "no_slice", L)]),
    (
        "Left axillary node SUVmax 5.5 on slice 95 and left hilar node SUVmax 4.1 on slice 110 and subcarinal node SUVmax 3.3 on slice 112.",
        [(5.5, 95, L), (4.1, 110, L), (3.3, 112, None)],
    ),
    (
        "Left axillary node (5.5 SUVmax, slice 95), right hilar node (4.1 SUVmax, slice 110).",
        [(5.5, 95, L), (4.1, 110, R)],
    ),
    (
        "Left axillary node on slice 95, SUVmax 5.5, and right hilar node on slice 110, SUVmax 4.1.",
        [(5.5, 95, L), (4.1, 110, R)],
    ),
    (
        "There are FDG avid nodes: left axilla, slice 95, SUVmax 5.5; right hilum, slice 110, SUVmax 4.1.",
        [(5.5, 95, L), (4.1, 110, R)],
    ),
    (
        "Left axillary node, SUVmax 5.5, slice 95, with an adjacent smaller node, SUVmax 4.1, slice 97.",
        [(5.5, 95, L), (4.1, 97, L)],
    ),
    (
        "Left axillary node SUVmax 5.5, slice 95. Adjacent smaller node SUVmax 4.1, slice 97.",
        [(5.5, 95, L), (4.1, 97, L)],
    ),
    (
        "LEFT AXILLA: NODE WITH SUVMAX 5.5 ON SLICE 95. SECOND NODE WITH SUVMAX 4.1 ON SLICE 97.",
        [(5.5, 95, L), (4.1, 97, L)],
    ),
    ("Nodule in left axilla. Slice: 95. SUVmax: 5.5.", [(5.5, 95, L)]),
    ("An avid left axillary node is present.\nSUVmax: 5.5\nImage: 95", [(5.5, 95, L)]),
    (
        "Left axillary node, SUVmax 5.5 (image 95), which is suspicious. This was 9.9 before.",
        [(5.5, 95, L), (9.9, "prior", L)],
    ),
    (
        "Left axillary node is 1.1 cm, SUV 5.5, see image 95. It was 1.9 cm with SUV 9.9.",
        [(5.5, 95, L), (9.9, "prior", L)],
    ),
    ("Adjacent to the left psoas, a retroperitoneal node has SUVmax 5.5 on slice 200.", [(5.5, 200, None)]),
    ("Nodule at the left aspect of the T5 vertebra, SUVmax 5.5, slice 100.", [(5.5, 100, L)]),
    ("Aortopulmonary node, SUVmax 5.5, slice 104, medial to the left hilum.", [(5.5, 104, None)]),
    ("Rt. axillary LN SUVmax 5.5, sl 95", [(5.5, 95, R)]),
    ("SUVmax 5.5 (axial slice 95): uptake in the left axilla.", [(5.5, 95, L)]),
    ("Left axillary node SUVmax5.5 slice95", [(5.5, 95, L)]),
    ("Left axillary node with SUV-max of 5,5 on slice 95", [(5.5, 95, L)]),
    ("left axillary node with suv of five on slice 95", []),
    ("Left axillary node, SUVmax 5.5 at 60 min and 6.6 at 120 min, slice 95.", [(5.5, 95, L), (6.6, "ambiguous", L)]),
]


@pytest.mark.parametrize(("text", "want"), FORMS, ids=[str(n) for n in range(len(FORMS))])
def test_form(text: str, want: list[tuple[float, int | str, str | None]]) -> None:
    found = extract_findings(text)
    assert [(f.suv, f.slice if f.status == "positive" else f.reason) for f in found] == [w[:2] for w in want]
    for finding, (_, fate, side) in zip(found, want, strict=True):
        if isinstance(fate, int):
            assert finding.laterality == side
