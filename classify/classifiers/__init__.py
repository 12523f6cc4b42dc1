"""The six classifiers and their calibration."""
