"""DICOM in (series, SUVbw) and out (SEG, SR)."""
