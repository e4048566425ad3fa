"""Where reports and images come from when they are no table and no folder yet: FHIR, HL7 v2, DICOMweb."""
