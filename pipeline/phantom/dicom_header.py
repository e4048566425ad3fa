"""DICOM attributes of the phantom's PET and CT series, type 1 and 2 attributes of their information entities filled.

Modules: DICOM PS3.3 A.21 (PET Image), A.3 (CT Image), C.8.9 (PET series, isotope, image). Codes: PS3.16 CID 4020
(radionuclides), 4021 (radiopharmaceuticals), 19 and 21 (patient orientation).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import metadata

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, PositronEmissionTomographyImageStorage, generate_uid
from pydicom.valuerep import format_number_as_ds

from petground.pipeline.phantom.records import PhantomExam

__all__ = [
    "CT_DELAY",
    "Clock",
    "clock_of",
    "common_header",
    "ct_header",
    "dose_bq",
    "ds",
    "frame_timing",
    "pet_header",
    "uid_of",
]

# Half-lives [s]: F-18 109.77 min, Ga-68 67.629 min; positron fractions: NNDC, Nuclear Structure and Decay Data.
HALF_LIFE_S = {"F18": 6586.2, "Ga68": 4057.74}
NUCLIDES = {
    "F18": ("77004003", "SCT", "^18^Fluorine", 0.9673),
    "Ga68": ("35337001", "SCT", "^68^Gallium", 0.8891),
}
PHARMACEUTICALS = {
    "FDG": ("F18", "35321007", "SCT", "Fluorodeoxyglucose F^18^"),
    "DOTATATE": ("Ga68", "724025002", "SCT", "Dotatate Ga^68^"),
    "DCFPyL": ("F18", "C116352", "NCIt", "Piflufolastat F^18^"),
    "fluciclovine": ("F18", "457000009", "SCT", "Fluciclovine F^18^"),
}
BED_MM = 150.0  # axial reach of one bed position
BED_SECONDS = 120.0
CT_DELAY = timedelta(minutes=2)  # the CT is made before the PET


@dataclass(frozen=True)
class Clock:
    """When things happen; activities are decay-corrected to `scan`, the PET's SeriesTime."""

    injection: datetime
    scan: datetime
    half_life_s: float

    @property
    def decayed(self) -> float:
        """Share of the injected activity that is left at `scan`."""
        return math.exp(-math.log(2.0) * (self.scan - self.injection).total_seconds() / self.half_life_s)


def ds(value: float) -> str:
    """A decimal string (VR DS) in at most 16 characters, the most precise that fits."""
    return str(format_number_as_ds(float(value)))


def uid_of(exam: PhantomExam, *parts: str) -> str:
    """The same exam gives the same UIDs, another exam of the same name (another seed) gives others."""
    content = hashlib.sha256(exam.pet.array.tobytes()).hexdigest()
    return str(generate_uid(entropy_srcs=[exam.exam_id, exam.patient.patient_id, content, *parts]))


def clock_of(exam: PhantomExam) -> Clock:
    """A working-day time drawn from the exam's name, so that no exam runs over midnight."""
    seconds = int(hashlib.sha256(exam.exam_id.encode()).hexdigest(), 16) % (8 * 3600)
    scan = datetime.fromisoformat(exam.patient.study_date[:10]) + timedelta(hours=9, seconds=seconds)
    injection = scan - timedelta(seconds=round(exam.patient.uptake_minutes * 60))
    nuclide = PHARMACEUTICALS[exam.patient.tracer][0]
    return Clock(injection, scan, HALF_LIFE_S[nuclide])


def code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def common_header(exam: PhantomExam, clock: Clock, study_uid: str) -> Dataset:
    """Patient, study and equipment; the same in every series of the exam."""
    patient, header = exam.patient, Dataset()
    header.SpecificCharacterSet = "ISO_IR 100"
    header.StudyInstanceUID = study_uid
    header.StudyDate = clock.scan.strftime("%Y%m%d")
    header.StudyTime = (clock.scan - 2 * CT_DELAY).strftime("%H%M%S")
    header.StudyID, header.AccessionNumber, header.ReferringPhysicianName = "1", "", ""
    header.StudyDescription = f"PET/CT {patient.tracer}"
    header.PatientName = f"Phantom^{patient.patient_id}"
    header.PatientID, header.PatientBirthDate, header.PatientSex = patient.patient_id, "", patient.sex
    header.PatientAge = f"{patient.age:03d}Y"
    header.PatientWeight, header.PatientSize = ds(patient.weight_kg), ds(patient.height_cm / 100.0)
    header.Manufacturer, header.ManufacturerModelName = "petground phantom", "digital phantom"
    header.SoftwareVersions, header.DeviceSerialNumber = metadata.version("petground"), "0"
    header.PositionReferenceIndicator = ""
    header.BodyPartExamined = "WHOLEBODY"
    header.BurnedInAnnotation = "NO"
    return header


def pet_header(header: Dataset, exam: PhantomExam, clock: Clock, *, corrected: bool) -> Dataset:
    """PET series and isotope modules on top of the common header; `corrected` for attenuation and scatter."""
    patient = exam.patient
    header.SOPClassUID, header.Modality = PositronEmissionTomographyImageStorage, "PT"
    header.SeriesDescription = "PET AC" if corrected else "PET NAC"
    header.SeriesNumber = 3 if corrected else 4
    header.SeriesDate, header.SeriesTime = clock.scan.strftime("%Y%m%d"), clock.scan.strftime("%H%M%S")
    header.ImageType = ["ORIGINAL", "PRIMARY"]
    header.Units, header.CountsSource, header.DecayCorrection = "BQML", "EMISSION", "START"
    header.SeriesType = ["WHOLE BODY", "IMAGE"]
    header.CorrectedImage = ["NORM", "DTIM", "RAN", "DECY"]
    header.RandomsCorrectionMethod = "DLYD"
    if corrected:
        header.CorrectedImage = ["NORM", "DTIM", "RAN", "ATTN", "SCAT", "DECY"]
        header.AttenuationCorrectionMethod = "CT-based, measured"
        header.ScatterCorrectionMethod = "model-based"
        header.ScatterFractionFactor = "0.35"
    header.ReconstructionMethod, header.CollimatorType = "OSEM", "NONE"
    header.NumberOfSlices = exam.pet.shape[2]
    header.ActualFrameDuration = str(round(BED_SECONDS * 1000))
    header.DoseCalibrationFactor = "1"
    nuclide, value, scheme, meaning = PHARMACEUTICALS[patient.tracer]
    nuclide_value, nuclide_scheme, nuclide_meaning, positrons = NUCLIDES[nuclide]
    isotope = Dataset()
    isotope.Radiopharmaceutical = patient.tracer
    isotope.RadiopharmaceuticalStartTime = clock.injection.strftime("%H%M%S")
    isotope.RadiopharmaceuticalStartDateTime = clock.injection.strftime("%Y%m%d%H%M%S")
    isotope.RadionuclideTotalDose = ds(dose_bq(exam))
    isotope.RadionuclideHalfLife = ds(clock.half_life_s)
    isotope.RadionuclidePositronFraction = ds(positrons)
    isotope.RadionuclideCodeSequence = Sequence([code(nuclide_value, nuclide_scheme, nuclide_meaning)])
    isotope.RadiopharmaceuticalCodeSequence = Sequence([code(value, scheme, meaning)])
    header.RadiopharmaceuticalInformationSequence = Sequence([isotope])
    lying = code("102538003", "SCT", "recumbent")
    lying.PatientOrientationModifierCodeSequence = Sequence([code("40199007", "SCT", "supine")])
    header.PatientOrientationCodeSequence = Sequence([lying])
    header.PatientGantryRelationshipCodeSequence = Sequence([code("102540008", "SCT", "headfirst")])
    return header


def dose_bq(exam: PhantomExam) -> float:
    """Injected activity [Bq] as it is written."""
    return float(round(exam.patient.dose_mbq * 1e6))


def frame_timing(header: Dataset, clock: Clock, place_mm: float) -> None:
    """Times of the bed position that holds a slice, `place_mm` above the lowest: beds run from the thighs up.

    FrameReferenceTime is when the decaying activity equals its mean over the frame (PS3.3 C.8.9.4.1.5).
    """
    decay = math.log(2.0) / clock.half_life_s
    started_s = int(place_mm // BED_MM) * (BED_SECONDS + 4.0)  # four seconds to move the table
    acquired = clock.scan + timedelta(seconds=started_s)
    gain = decay * BED_SECONDS / -math.expm1(-decay * BED_SECONDS)
    header.AcquisitionDate = header.ContentDate = acquired.strftime("%Y%m%d")
    header.AcquisitionTime = header.ContentTime = acquired.strftime("%H%M%S")
    header.FrameReferenceTime = ds(1000.0 * (started_s + math.log(gain) / decay))
    header.DecayFactor = ds(gain * math.exp(decay * started_s))


def ct_header(header: Dataset, clock: Clock) -> Dataset:
    """CT series and image modules on top of the common header."""
    scan = clock.scan - CT_DELAY
    header.SOPClassUID, header.Modality = CTImageStorage, "CT"
    header.SeriesDescription, header.SeriesNumber = "CT WB low dose", 2
    header.SeriesDate = header.AcquisitionDate = header.ContentDate = scan.strftime("%Y%m%d")
    header.SeriesTime = header.AcquisitionTime = header.ContentTime = scan.strftime("%H%M%S")
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.PatientPosition = "HFS"  # the PET says the same in codes, and must not say both
    header.AcquisitionNumber = 1
    header.KVP, header.XRayTubeCurrent, header.ExposureTime = "120", 60, 500
    header.ConvolutionKernel, header.ScanOptions = "STANDARD", "HELICAL MODE"
    header.RescaleType = "HU"
    header.WindowCenter, header.WindowWidth = "40", "400"
    return header
