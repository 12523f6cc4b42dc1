"""Cached features become speaker names, scores and honest tables."""
