"""Annotation formats: RTTM, TextGrid and CSV become turns, and turns the segment table."""
