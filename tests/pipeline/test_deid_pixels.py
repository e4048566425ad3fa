"""What may show an identity in its pixels is left out; what shows a patient's inside is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dicom_series as series
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset

from petground.pipeline.deid.burned_in import holds_text, left_out
from petground.pipeline.deid.dicom import Subject
from petground.pipeline.deid.images import write_images
from petground.pipeline.deid.profile import Profile
from petground.pipeline.nifti import read_nifti
from petground.pipeline.read import read_exam

SUBJECT = Subject(bytes(32), "p", -700)


def header(**changes: Any) -> Dataset:
    ds = series.data_set("CT", "1.2.3", 0, series.stored()[0])
    for name, value in changes.items():
        setattr(ds, name, value)
    return ds


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.128"}, None),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, None),
        ({"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED"], "SeriesDescription": "CT 3 mm cor"}, None),
        ({"SeriesDescription": "Protocol 3 CT wb"}, None),
        ({"SeriesDescription": "WB summed 3D"}, None),
        ({"BurnedInAnnotation": "YES"}, "burned_in_annotation"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary_capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.4"}, "secondary_capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67"}, "dose_report"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"}, "structured_report"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}, "document"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1"}, "presentation_state"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66"}, "raw_data"),
        ({"SOPClassUID": "1.3.12.2.1107.5.9.1"}, "other_object"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "screen_capture"),
        ({"ConversionType": "WSD"}, "screen_capture"),
        ({"SeriesDescription": "Dose Report"}, "screen_capture"),
        ({"SeriesDescription": "Patient Protocol"}, "screen_capture"),
        ({"ImageType": ["DERIVED", "SECONDARY"], "SeriesDescription": "ScreenShots PET"}, "screen_capture"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour_image"),
    ],
)
def test_objects_are_judged_by_their_header(changes: dict[str, Any], reason: str | None) -> None:
    assert left_out(header(**changes), Profile()) == reason


def test_overlays_in_unused_bits_are_found() -> None:
    ds = header()
    ds.add_new(0x60000100, "US", 16)
    assert left_out(ds, Profile()) == "overlay_in_pixels"


def anatomy(size: int = 256, seed: int = 0) -> NDArray[np.int16]:
    """A body of soft tissue with bones, a table and noise, as a CT slice [rows, columns] in stored values."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size - 0.5
    image = np.full((size, size), 24.0)
    image[(x / 0.42) ** 2 + (y / 0.3) ** 2 < 1] = 1060
    for _ in range(30):
        cx, cy, r = rng.uniform(-0.35, 0.35), rng.uniform(-0.28, 0.28), rng.uniform(0.005, 0.04)
        image[(x - cx) ** 2 + (y - cy) ** 2 < r**2] = rng.uniform(200, 2000)
    image[(abs(y - 0.36) < 0.01) & (abs(x) < 0.4)] = 500
    return (image + rng.normal(0, 12, image.shape) * (image > 100)).astype(np.int16)


def written_on(
    image: NDArray[np.int16], text: str, place: tuple[int, int], value: int, height: int = 12
) -> NDArray[np.int16]:
    drawn = Image.new("L", image.shape[::-1], 0)
    ImageDraw.Draw(drawn).text(place, text, fill=255, font=ImageFont.load_default(height))
    return np.where(np.array(drawn) > 127, value, image).astype(np.int16)


@pytest.mark.parametrize("seed", range(12))
def test_anatomy_is_no_text(seed: int) -> None:
    assert not holds_text(anatomy(seed=seed))
    assert not holds_text(np.random.default_rng(seed).normal(100, 30, (128, 128)))


@pytest.mark.parametrize("place", [(4, 4), (120, 4), (4, 236)])
@pytest.mark.parametrize("text", ["DOE^JANE 1951-04-03", "MRN 00123456", "Mercy General 10:22"])
def test_text_near_the_edges_is_found(place: tuple[int, int], text: str) -> None:
    assert holds_text(written_on(anatomy(), text, place, 3000))


def image_series(folder: Path, pixels: Callable[[int], NDArray[np.int16]], kind: list[str]) -> None:
    def edit(ds: Dataset, k: int) -> None:
        values = pixels(k)
        ds.Rows, ds.Columns = values.shape
        ds.PixelData, ds.ImageType = values.tobytes(), kind

    series.write(folder, "CT", edit)


def test_derived_images_with_text_do_not_leave(tmp_path: Path) -> None:
    image_series(
        tmp_path / "in", lambda k: written_on(anatomy(), "DOE^JANE 1951", (4, 4), 3000), ["DERIVED", "SECONDARY"]
    )
    images = write_images(tmp_path / "in", tmp_path / "out", SUBJECT)
    assert images.left == {"text_in_pixels": 6}
    assert not images.written
    image_series(tmp_path / "clean", anatomy_of, ["DERIVED", "SECONDARY"])
    assert write_images(tmp_path / "clean", tmp_path / "out2", SUBJECT).written == {"CT": 6}


def anatomy_of(k: int) -> NDArray[np.int16]:
    return anatomy(seed=k)


def test_other_files_stay_behind_and_nifti_loses_its_texts(tmp_path: Path) -> None:
    import nibabel as nib

    source = tmp_path / "in"
    source.mkdir()
    for name in ("report.pdf", "photo.jpg", "Needle.txt", "t1.nii.gz"):
        (source / name).write_bytes(b"Needle")
    array = np.zeros((5, 6, 7), np.float32)
    array[1, 4, 2] = 7.25
    affine = np.array([[-4.0, 0, 0, 90], [0, -4.0, 0, 80], [0, 0, 3.0, -100], [0, 0, 0, 1]])
    image = nib.Nifti1Image(array, affine)
    image.header["descrip"], image.header["db_name"], image.header["aux_file"] = (
        b"Needle 1951",
        b"Needle",
        b"Needle.dcm",
    )
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Needle^Zoltan"))
    nib.save(image, source / "pet.nii.gz")
    images = write_images(source, tmp_path / "out", SUBJECT)
    assert images.left == {"other_file": 4}
    assert images.written == {"NIfTI": 1}
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["pet.nii.gz"]
    after = read_exam(tmp_path / "out", case="a").pet
    np.testing.assert_array_equal(after.array, read_nifti(source / "pet.nii.gz", "SUVbw").array)
    np.testing.assert_array_equal(after.affine, read_nifti(source / "pet.nii.gz", "SUVbw").affine)
    import gzip

    packed = (tmp_path / "out" / "pet.nii.gz").read_bytes()
    assert b"Needle" not in gzip.decompress(packed)
    assert b"Needle" not in packed


def test_scaled_nifti_keeps_its_values(tmp_path: Path) -> None:
    import nibabel as nib

    source = tmp_path / "in"
    source.mkdir()
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([4.0, 4, 3, 1]))
    image.header.set_slope_inter(0.25, 1.5)
    nib.save(image, source / "pet.nii.gz")
    expected = nib.load(source / "pet.nii.gz").get_fdata()
    write_images(source, tmp_path / "out", SUBJECT)
    np.testing.assert_array_equal(nib.load(tmp_path / "out" / "pet.nii.gz").get_fdata(), expected)
