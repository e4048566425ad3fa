"""The digital phantom: PET/CT exams with known lesions and reports, made from numbers alone."""
