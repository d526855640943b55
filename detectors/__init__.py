"""The detectors: one file each, whose name is the detector's id and whose docstring is its documentation."""
