"""NIfTI in and out."""

from __future__ import annotations

import errno
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from petground.labeling.errors import GeometryError, InputError
from petground.labeling.volume import Unit, Volume, same_grid
from petground.pipeline import nifti
from petground.pipeline.nifti import read_nifti, require_suv, write_nifti

AFFINE = np.array([[-4.0, 0.1, 0, 90], [0.1, 4.0, 0, -70], [0, 0, 3.27, -360.2], [0, 0, 0, 1]])


def volume(unit: str = "SUVbw", dtype: type = np.float32) -> Volume:
    array = np.arange(4 * 5 * 6).reshape(4, 5, 6).astype(dtype)
    return Volume(array, AFFINE, unit, frame_of_reference="1.2.3.4", instance_numbers=(6, 5, 4, 3, 2, 1))  # type: ignore[arg-type]


@pytest.mark.parametrize(("unit", "dtype"), [("SUVbw", np.float32), ("HU", np.int16), ("label", np.uint8)])
def test_what_is_written_is_read(tmp_path: Path, unit: str, dtype: type) -> None:
    source = volume(unit, dtype)
    write_nifti(tmp_path / "new" / "a.nii.gz", source)
    back = read_nifti(tmp_path / "new" / "a.nii.gz", source.unit)
    np.testing.assert_array_equal(back.array, source.array)
    assert back.array.dtype == dtype
    assert same_grid(back, source, atol_mm=1e-4)
    assert back.frame_of_reference == "1.2.3.4"
    assert back.instance_numbers == (6, 5, 4, 3, 2, 1)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.nii.gz"]


def test_the_same_volume_gives_the_same_bytes(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii.gz", volume())
    write_nifti(tmp_path / "b.nii.gz", volume())
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_masks_are_uint8_and_large_labels_int32(tmp_path: Path) -> None:
    mask = volume("label", np.int16).like(volume().array > 60, "label")
    write_nifti(tmp_path / "m.nii.gz", mask)
    assert read_nifti(tmp_path / "m.nii.gz", "label").array.dtype == np.uint8
    write_nifti(tmp_path / "l.nii.gz", volume("label", np.int32).like(volume().array.astype(np.int32) + 300, "label"))
    assert read_nifti(tmp_path / "l.nii.gz", "label").array.max() == 419


def test_a_shear_survives(tmp_path: Path) -> None:
    sheared = AFFINE.copy()
    sheared[0, 2] = 1.5
    write_nifti(tmp_path / "s.nii.gz", Volume(np.ones((2, 3, 4), np.float32), sheared, "SUVbw"))
    np.testing.assert_allclose(read_nifti(tmp_path / "s.nii.gz", "SUVbw").affine, sheared, atol=1e-5)


def test_another_tool_sees_the_mark_where_it_is(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    array = np.zeros((4, 5, 6), np.float32)
    array[3, 1, 4] = 9.0
    source = Volume(array, np.array([[-4.0, 0, 0, 90], [0, 4, 0, -70], [0, 0, 3, -360], [0, 0, 0, 1]]), "SUVbw")
    write_nifti(tmp_path / "a.nii.gz", source)
    image = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    lps = np.array([-1, -1, 1]) * source.to_world_mm([3, 1, 4])
    assert image[image.TransformPhysicalPointToIndex(lps.tolist())] == 9.0


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x1f\x8b broken"])
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pet.nii.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"pet\.nii\.gz") as error:
        read_nifti(tmp_path / "pet.nii.gz", "SUVbw")
    assert error.value.reason == "unreadable"


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    big = Volume(np.random.default_rng(0).random((30, 30, 30)).astype(np.float32), AFFINE, "SUVbw")
    write_nifti(tmp_path / "pet.nii.gz", big)
    whole = (tmp_path / "pet.nii.gz").read_bytes()
    for length in (len(whole) // 2, len(whole) - 4):
        (tmp_path / "pet.nii.gz").write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"pet\.nii\.gz cannot be read"):
            read_nifti(tmp_path / "pet.nii.gz", "SUVbw")


def test_missing_and_wrong_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_nifti(tmp_path / "none.nii.gz", "SUVbw")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match="NIfTI"):
        read_nifti(tmp_path / "a.txt", "SUVbw")
    with pytest.raises(InputError, match="NIfTI"):
        write_nifti(tmp_path / "a.mha", volume())


def test_a_recorded_unit_is_not_overruled(tmp_path: Path) -> None:
    write_nifti(tmp_path / "ct.nii.gz", volume("HU", np.int16))
    with pytest.raises(InputError, match="HU"):
        read_nifti(tmp_path / "ct.nii.gz", "SUVbw")


def test_geometry_is_never_guessed(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.ones((3, 3, 3), np.float32), None)
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    nib.save(image, tmp_path / "none.nii.gz")
    with pytest.raises(GeometryError, match="neither"):
        read_nifti(tmp_path / "none.nii.gz", "SUVbw")
    image = nib.Nifti1Image(np.ones((3, 3, 3), np.float32), np.eye(4))
    image.set_sform(np.eye(4), code=1)
    image.set_qform(np.diag([-1.0, -1, 1, 1]), code=1)
    nib.save(image, tmp_path / "two.nii.gz")
    with pytest.raises(GeometryError, match="apart"):
        read_nifti(tmp_path / "two.nii.gz", "SUVbw")


def test_lengths_in_metres_are_turned_to_millimetres(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.ones((3, 3, 3), np.float32), np.diag([0.004, 0.004, 0.003, 1]))
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "m.nii.gz")
    assert read_nifti(tmp_path / "m.nii.gz", "SUVbw").spacing_ijk_mm == pytest.approx((4, 4, 3), rel=1e-5)


def test_values_that_are_no_numbers_and_wrong_dimensions(tmp_path: Path) -> None:
    array = np.ones((3, 3, 3), np.float32)
    array[1, 2, 0] = np.nan
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "nan.nii.gz")
    with pytest.raises(InputError, match="NaN"):
        read_nifti(tmp_path / "nan.nii.gz", "SUVbw")
    nib.save(nib.Nifti1Image(np.ones((3, 3, 3, 2), np.float32), np.eye(4)), tmp_path / "4d.nii.gz")
    with pytest.raises(InputError, match="shape"):
        read_nifti(tmp_path / "4d.nii.gz", "SUVbw")
    nib.save(nib.Nifti1Image(np.full((3, 3, 3), 0.5, np.float32), np.eye(4)), tmp_path / "half.nii.gz")
    with pytest.raises(InputError, match="whole numbers"):
        read_nifti(tmp_path / "half.nii.gz", "label")


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_nifti(tmp_path / "a.nii.gz", volume())
    before = (tmp_path / "a.nii.gz").read_bytes()

    def fail(image: object, name: Path, packed: bool) -> None:
        Path(name).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(nifti, "_save", fail)
    with pytest.raises(OSError, match="No space left"):
        write_nifti(tmp_path / "a.nii.gz", volume())
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii.gz"]
    assert (tmp_path / "a.nii.gz").read_bytes() == before


@pytest.mark.parametrize("values", [[0.0, 25_000.0], [-800.0, 60.0], [0.0, 0.0]])
def test_what_is_obviously_not_suv_is_refused(values: list[float]) -> None:
    array = np.resize(np.array(values, np.float32), (4, 4, 4))
    with pytest.raises(InputError, match="SUVbw") as error:
        require_suv(Volume(array, np.eye(4), "SUVbw"), Path("pet.nii.gz"))
    assert error.value.reason == "not_suv"


def test_hounsfield_units_beyond_int16_stay_bright(tmp_path: Path) -> None:
    array = np.full((2, 2, 2), 40, np.uint16)
    array[0, 0, 0] = 65535
    write_nifti(tmp_path / "ct.nii.gz", Volume(array, np.eye(4), "HU"))
    assert read_nifti(tmp_path / "ct.nii.gz", "HU").array[0, 0, 0] == 32767


@pytest.mark.parametrize(
    ("unit", "dtype"), [("SUVbw", np.float32), ("HU", np.int16), ("HU", np.int32), ("label", np.uint8)]
)
def test_a_volume_as_stored_is_what_reading_gives(tmp_path: Path, unit: Unit, dtype: type) -> None:
    """An exam that was just read is labelled from memory; a later run reads the file. Both must see the same."""
    rng = np.random.default_rng(3)
    affine = np.array([[-4.07283, 0.01, 0, 80.3], [0.01, -4.07283, 0, 81.7], [0, 0, 3.27, -1 / 3], [0, 0, 0, 1]])
    array = (rng.random((3, 4, 5)) * 60).astype(dtype)
    volume = Volume(array, affine, unit, frame_of_reference="1.2.3", instance_numbers=(5, 4, 3, 2, 1))
    write_nifti(tmp_path / "v.nii.gz", volume)
    read, kept = read_nifti(tmp_path / "v.nii.gz", unit), nifti.as_stored(volume)
    assert read.array.dtype == kept.array.dtype
    assert read.array.strides == kept.array.strides
    np.testing.assert_array_equal(read.array, kept.array)
    np.testing.assert_array_equal(read.affine, kept.affine)
    assert (read.frame_of_reference, read.instance_numbers) == (kept.frame_of_reference, kept.instance_numbers)
