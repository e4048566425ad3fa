"""Statements of the end that slices are counted from."""

from __future__ import annotations

import time

import pytest

from petground.labeling.language.counting import slices_counted


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("Slice numbers counted from feet.", "feet"),
        ("Slices are numbered caudocranially.", "feet"),
        ("Note: slice counting is feet-first.", "feet"),
        ("Axial images are numbered from the inferior end.", "feet"),
        ("Slice 1 = feet.", "feet"),
        ("Slice numbering starts at the toes.", "feet"),
        ("PET slices run from caudal to cranial.", "feet"),
        ("Images numbered from head to feet.", "head"),
        ("Image 1 is at the vertex.", "head"),
        ("Slices are counted craniocaudally.", "head"),
        ("Patient positioned feet first.", None),
        ("Images were acquired from the skull base to the thighs.", None),
        ("Left hilar node, SUVmax 5.2, slice 58. Swelling of the feet.", None),
        ("Slices counted from the feet. Slices counted from the head.", None),
        ("Axial slices in this report are numbered from the feet upward, slice 1 being at the mid thigh.", "feet"),
        ("Slice numbers refer to the axial PET counted from the feet.", "feet"),
        ("Numbering of the images begins at the head.", "head"),
        ("Increased uptake extends inferiorly to the sacrum, SUVmax 5.2, slice 200.", None),
        ("The node is inferior to the carina, SUVmax 5.2, slice 90, increased.", None),
        ("Lesion 1 arising from the inferior pole of right kidney, SUVmax 5.2, slice 150.", None),
        ("Increased uptake extending from the pelvis into the left thigh, SUVmax 6.1, slice 210.", None),
        ("Increased uptake arising from the head of the pancreas (SUVmax 7.2, image 133)", None),
        ("Starting 60 minutes after injection, PET images were obtained from the skull base to the mid thighs.", None),
        ("Axial images from the pelvis to the skull base were started at 60 min.", None),
        ("An increased number of nodes extends inferiorly, seen on image 77 and on axial images.", None),
        ("The images run from the skull base to the thighs.", None),
        ("", None),
    ],
)
def test_slices_counted(text: str, end: str | None) -> None:
    assert slices_counted(text) == end


@pytest.mark.parametrize("unit", ["from feet ", "slice number ", "slice from the feet number ", "= feet "])
def test_a_megabyte_takes_under_a_second(unit: str) -> None:
    began = time.process_time()
    slices_counted(unit * (1_000_000 // len(unit)))
    assert time.process_time() - began < 1.0
