"""Segments as audio files, and the names of such files."""
