"""De-identification of report text and DICOM before anything leaves: keyed ids, shifted dates, a report of removals."""
