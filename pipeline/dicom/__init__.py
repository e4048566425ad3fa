"""DICOM in and out."""

import logging

# pydicom logs a value that breaks a rule word for word, and a header's values are the patient's.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
