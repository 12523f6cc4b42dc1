"""Annotation formats: read turns from RTTM, TextGrid, CSV and others; build the segment table."""
