"""Report language, SUV arithmetic, matching and contouring: pure domain logic, no files, no torch.

Text in, findings out; arrays and affines in, masks out. Everything here is importable without a
DICOM reader and testable on arrays made in the test.
"""
