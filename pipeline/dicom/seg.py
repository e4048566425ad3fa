"""DICOM Segmentation objects (PS3.3 A.51) of labels on a PET grid, and back."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petground.labeling.errors import GeometryError, InputError
from petground.labeling.volume import Volume
from petground.pipeline.dicom.codes import LESION, LESION_CATEGORY, side_code, site_code
from petground.pipeline.dicom.objects import DEVICE, Finding3D, SourcePet, device_uid, stable_uid, version

__all__ = ["build_seg", "read_seg", "tracking_uid"]

PALETTE_RGB = (
    (230, 25, 75), (60, 180, 75), (0, 130, 200), (245, 130, 48), (145, 30, 180), (70, 200, 200), (240, 50, 230),
    (170, 130, 40),
)  # fmt: skip
PLACE_TOLERANCE = 0.2  # voxels; bed seams of whole-body PET move slices by hundredths
SERIES_NUMBER = 8001  # far from a scanner's own numbers


def build_seg(source: SourcePet, findings: Sequence[Finding3D], *, case: str) -> Any:
    """A binary Segmentation with one segment per finding, in the order given; segments may overlap.

    Frames carry the plane positions of the source images themselves, so they lie where those lie, whatever the
    series' direction. Raises InputError without findings, GeometryError when a mask is not on the source's grid or
    is empty.
    """
    import highdicom as hd
    from pydicom.sr.codedict import codes

    if not findings:
        raise InputError("no label to write as DICOM SEG", case=case)
    frames = _frames(source, findings[0], case)[..., None]
    if len(findings) > 1:  # one at a time into their place: here alone all masks are whole
        frames = np.empty((*frames.shape[:3], len(findings)), dtype=np.uint8)
        for number, finding in enumerate(findings):
            frames[..., number] = _frames(source, finding, case)
    descriptions, kinds = [], hd.seg.SegmentAlgorithmTypeValues
    for number, finding in enumerate(findings, start=1):
        place, side = site_code(finding.site), side_code(finding.laterality)
        description = hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=finding.label[:64],  # VR LO
            segmented_property_category=LESION_CATEGORY,
            segmented_property_type=LESION,
            algorithm_type=kinds.MANUAL if finding.manual else kinds.AUTOMATIC,
            algorithm_identification=None
            if finding.manual
            else hd.AlgorithmIdentificationSequence(
                name=f"{DEVICE} {finding.method}".strip()[:64],
                family=codes.DCM.ArtificialIntelligence if finding.learned else codes.DCM.NeighborhoodAnalysis,
                version=version(),
                source=DEVICE,
            ),
            tracking_uid=tracking_uid(str(source.datasets[0].SeriesInstanceUID), finding.finding_id),
            tracking_id=f"{case} {finding.finding_id}"[:64],
            anatomic_regions=None if place is None else [place],
            display_color=_colour(hd, number),
        )
        if place is not None and side is not None:
            modifier = hd.sr.CodedConcept.from_code(side)
            description.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [modifier]
        descriptions.append(description)
    learned = all(finding.learned for finding in findings)
    about = "Answers of a model, for review" if learned else "Weak labels from report and PET, for review"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd but harmless values of the source's patient and study attributes
        return hd.seg.Segmentation(
            source_images=source.datasets,
            pixel_array=frames,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=descriptions,
            series_instance_uid=hd.UID(),
            series_number=SERIES_NUMBER,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer=DEVICE,
            manufacturer_model_name=DEVICE,
            software_versions=version(),
            device_serial_number=device_uid()[-16:],
            content_label="LESIONS",
            content_description=about,
            series_description="petground lesions",
        )


def read_seg(path: Path, pet: Volume) -> dict[int, Volume]:
    """Segment number -> mask (uint8 0/1) on the grid of `pet`, from any BINARY or LABELMAP Segmentation of it.

    Raises InputError when the file is not a Segmentation or holds fractions, GeometryError when a frame does not lie
    on the grid.
    """
    import highdicom as hd

    try:
        seg = hd.seg.segread(path)
    except Exception as error:  # pydicom and highdicom raise many kinds for files that are none
        raise InputError(f"{path.name} is not a DICOM Segmentation", fix="export it as DICOM SEG") from error
    if pet.frame_of_reference and seg.get("FrameOfReferenceUID") not in (None, pet.frame_of_reference):
        raise GeometryError(
            f"{path.name} is in another frame of reference than the PET", fix="choose the SEG of this exam"
        )
    if str(seg.get("SegmentationType")) == "FRACTIONAL":
        whole = int(seg.get("MaximumFractionalValue", 255))
        if not np.isin(seg.pixel_array, (0, whole)).all():
            raise InputError(f"{path.name} holds fractions, not an outline", fix="export it as a binary segmentation")
    masks = {int(n): np.zeros(pet.shape, dtype=np.uint8) for n in seg.segment_numbers}
    pixels = np.atleast_3d(seg.pixel_array) if seg.get("NumberOfFrames", 1) > 1 else seg.pixel_array[None]
    shared = seg.SharedFunctionalGroupsSequence[0]
    for frame, group in zip(pixels, seg.PerFrameFunctionalGroupsSequence, strict=True):
        index = _plane_index(_plane_affine(shared, group), frame.shape, pet, path.name)
        identification = group.get("SegmentIdentificationSequence") or shared.get("SegmentIdentificationSequence")
        if identification:
            masks[int(identification[0].ReferencedSegmentNumber)][index] |= (frame > 0).astype(np.uint8)
        else:  # LABELMAP: the value is the segment
            for number, mask in masks.items():
                mask[index] |= (frame == number).astype(np.uint8)
    return {number: pet.like(mask, "label") for number, mask in masks.items()}


def tracking_uid(series_uid: str, finding_id: str) -> str:
    """Of a finding on a PET series: the same in SEG and SR, and again when it is exported anew or comes back."""
    return stable_uid(series_uid, finding_id)


def _frames(source: SourcePet, finding: Finding3D, case: str) -> NDArray[np.uint8]:
    """The mask as [frame, row, column] in the order of the source's images."""
    where = f"{case}/{finding.finding_id}"
    if finding.mask.shape != source.shape or np.abs(finding.mask.affine - source.affine).max() > 0.1:
        raise GeometryError("the mask is not on the grid of the source PET", case=where, fix="label the exam again")
    inside = (finding.mask.array > 0).astype(np.uint8)
    if not inside.any():
        raise GeometryError("the mask is empty", case=where, fix="label the exam again")
    stack = np.ascontiguousarray(inside.transpose(2, 1, 0))
    if source.frame_of_k is None:
        return stack
    ordered = np.zeros((int(source.datasets[0].NumberOfFrames), *stack.shape[1:]), dtype=np.uint8)
    ordered[list(source.frame_of_k)] = stack
    return ordered


def _plane_affine(shared: Any, group: Any) -> NDArray[np.float64]:
    """[4, 3] (column, row, 1) -> RAS+ mm (homogeneous) of one frame, DICOM PS3.3 C.7.6.2.1.1."""

    def macro(name: str) -> Any:
        return (group.get(name) or shared.get(name))[0]

    position = np.array(macro("PlanePositionSequence").ImagePositionPatient, dtype=float)
    cosines = np.array(macro("PlaneOrientationSequence").ImageOrientationPatient, dtype=float)
    spacing = np.array(macro("PixelMeasuresSequence").PixelSpacing, dtype=float)
    plane = np.zeros((4, 3))
    plane[:3, 0], plane[:3, 1], plane[:3, 2] = cosines[:3] * spacing[1], cosines[3:] * spacing[0], position
    plane[3, 2] = 1.0
    return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ plane, dtype=np.float64)


def _plane_index(plane: NDArray[np.float64], shape: tuple[int, ...], pet: Volume, name: str) -> Any:
    """Numpy index into the PET array, one (row, column) grid of i, j, k, at which a frame's pixels lie."""
    rows, columns = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    points = np.stack([columns, rows, np.ones_like(rows)], axis=-1) @ plane.T
    exact = pet.to_index(points[..., :3])
    index = np.rint(exact).astype(int)
    if np.abs(exact - index).max() > PLACE_TOLERANCE or (index < 0).any() or (index >= np.array(pet.shape)).any():
        raise GeometryError(
            f"a frame of {name} does not lie on the PET's voxels", fix="export the SEG on the PET, not on the CT"
        )
    return index[..., 0], index[..., 1], index[..., 2]


def _colour(hd: Any, number: int) -> Any:
    """CIELab colour of a segment (sRGB, D65 as highdicom converts)."""
    red, green, blue = PALETTE_RGB[(number - 1) % len(PALETTE_RGB)]
    return hd.color.CIELabColor.from_rgb(red, green, blue)
