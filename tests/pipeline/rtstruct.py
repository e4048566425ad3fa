"""RT Structure Sets as contouring workstations write them, from points in LPS millimetres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from skimage.measure import find_contours

from petground.labeling.volume import Volume


def write_rtstruct(
    path: Path,
    rois: Mapping[str, Sequence[np.ndarray]],
    *,
    series: str = "1.2.3",
    frame: str | None = None,
    kind: str = "CLOSED_PLANAR",
) -> Path:
    """rois: name -> contours [n, 3] in LPS mm; numbered from 1 in their order."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.Modality, ds.PatientID, ds.StructureSetLabel, ds.OperatorsName = "RTSTRUCT", "P1", "EDITED", "Roe^Jo"
    place, study, images = Dataset(), Dataset(), Dataset()
    images.SeriesInstanceUID = series
    study.RTReferencedSeriesSequence = [images]
    place.FrameOfReferenceUID = frame or generate_uid()
    place.RTReferencedStudySequence = [study]
    ds.ReferencedFrameOfReferenceSequence = [place]
    ds.StructureSetROISequence, ds.ROIContourSequence, ds.RTROIObservationsSequence = [], [], []
    for number, (name, contours) in enumerate(rois.items(), start=1):
        roi, drawn, observed = Dataset(), Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ROIGenerationAlgorithm = number, name, "MANUAL"
        if frame is not None:
            roi.ReferencedFrameOfReferenceUID = frame
        drawn.ReferencedROINumber = observed.ReferencedROINumber = observed.ObservationNumber = number
        drawn.ContourSequence = []
        for points in contours:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
            contour.ContourData = [f"{value:.4f}" for value in np.asarray(points).ravel()]
            drawn.ContourSequence.append(contour)
        ds.StructureSetROISequence.append(roi)
        ds.ROIContourSequence.append(drawn)
        ds.RTROIObservationsSequence.append(observed)
    ds.save_as(path, enforce_file_format=True)
    return path


def contours_of(mask: np.ndarray, pet: Volume) -> list[np.ndarray]:
    """Contours halfway between voxels in and out, holes as contours of their own, LPS mm."""
    found = []
    for k in range(mask.shape[2]):
        for loop in find_contours(np.pad(mask[:, :, k].astype(float), 1), 0.5):
            index = np.column_stack([loop[:-1] - 1, np.full(len(loop) - 1, k)])
            found.append(pet.to_world_mm(index) * [-1, -1, 1])
    return found
