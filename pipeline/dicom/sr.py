"""DICOM Structured Reports (TID 1500, PS3.16) of what was measured in each label."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom.sr.coding import Code

from petground.labeling.errors import InputError
from petground.pipeline.dicom.codes import (
    LESION,
    LESION_CATEGORY,
    MAXIMUM,
    MILLILITRE,
    SUV_BW,
    SUV_BW_UNIT,
    VOLUME,
    side_code,
    site_code,
)
from petground.pipeline.dicom.objects import DEVICE, Finding3D, SourcePet, device_uid, version
from petground.pipeline.dicom.seg import tracking_uid

__all__ = ["build_sr"]

SERIES_NUMBER = 8002
PROCEDURE = Code("44136-0", "LN", "PET unspecified body region")  # CID 100


def build_sr(
    source: SourcePet,
    seg: Any,
    findings: Sequence[Finding3D],
    *,
    case: str,
    reviewer: str | None = None,
    value_map: Any = None,
) -> Any:
    """A measurement report with one group per finding: SUVbw maximum and volume of its segment in `seg`.

    findings: those of `build_seg`, in its order. reviewer: "Family^Given" of the person observer, where one accepted
    every label. value_map: the Real World Value Mapping of `build_value_map`, where there is one.
    The image library lists the slices that hold a finding. Raises InputError when `seg` has not one segment for each.
    """
    import highdicom as hd
    from highdicom import sr

    if len(seg.SegmentSequence) != len(findings):
        raise InputError(f"SEG has {len(seg.SegmentSequence)} segments for {len(findings)} findings", case=case)
    images = _images_with_findings(source, findings)
    mapped = None if value_map is None else sr.RealWorldValueMap(value_map.SOPInstanceUID)
    groups = [
        _group(sr, source, seg, number, finding, case, mapped) for number, finding in enumerate(findings, start=1)
    ]
    observers = {
        "observer_device_context": sr.ObserverContext(
            observer_type=Code("121007", "DCM", "Device"),
            observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
                uid=device_uid(), name=DEVICE, manufacturer_name=DEVICE, model_name=DEVICE, serial_number=version()
            ),
        )
    }
    if reviewer:
        observers["observer_person_context"] = sr.ObserverContext(
            observer_type=Code("121006", "DCM", "Person"),
            observer_identifying_attributes=sr.PersonObserverIdentifyingAttributes(name=reviewer),
        )
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(**observers),
        procedure_reported=PROCEDURE,
        imaging_measurements=groups,
        title=Code("126000", "DCM", "Imaging Measurement Report"),
        referenced_images=None if source.frame_of_k else images,  # highdicom's library knows single frames only
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd but harmless values of the source's patient and study attributes
        return sr.Comprehensive3DSR(
            evidence=[*images, seg, *([] if value_map is None else [value_map])],
            content=report,
            series_instance_uid=hd.UID(),
            series_number=SERIES_NUMBER,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer=DEVICE,
            is_complete=True,
            is_final=False,
            is_verified=False,
            series_description="petground measurements",
        )


def _images_with_findings(source: SourcePet, findings: Sequence[Finding3D]) -> list[Any]:
    """The source images that hold a part of a finding: a library of the whole series makes a report of megabytes."""
    if source.frame_of_k is not None:
        return source.datasets
    held = np.any([(finding.mask.array > 0).any(axis=(0, 1)) for finding in findings], axis=0)
    return [dataset for dataset, holds in zip(source.datasets, held, strict=True) if holds]


def _group(sr: Any, source: SourcePet, seg: Any, number: int, finding: Finding3D, case: str, mapped: Any) -> Any:
    place = site_code(finding.site)
    sites = None if place is None else [sr.FindingSite(place, laterality=side_code(finding.laterality))]
    algorithm = sr.AlgorithmIdentification(name=f"{DEVICE} {finding.method}".strip(), version=version())
    suv = sr.Measurement(
        name=SUV_BW,
        value=round(finding.suv_max, 4),
        unit=SUV_BW_UNIT,
        derivation=MAXIMUM,
        referenced_real_world_value_map=mapped,
    )
    volume = sr.Measurement(name=VOLUME, value=round(finding.volume_ml, 4), unit=MILLILITRE)
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=tracking_uid(str(source.datasets[0].SeriesInstanceUID), finding.finding_id),
            identifier=f"{case} {finding.finding_id}"[:64],
        ),
        referenced_segment=sr.ReferencedSegment(
            sop_class_uid=seg.SOPClassUID,
            sop_instance_uid=seg.SOPInstanceUID,
            segment_number=number,
            source_series=sr.SourceSeriesForSegmentation(source.datasets[0].SeriesInstanceUID),
        ),
        finding_category=LESION_CATEGORY,
        finding_type=LESION,
        finding_sites=sites,
        algorithm_id=algorithm,
        measurements=[suv, volume],
    )
