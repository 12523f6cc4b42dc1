"""Segments as batches of waveforms, augmented."""
