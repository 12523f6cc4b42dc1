"""Cached features become speaker names, scores and honest tables (no torch here)."""

__all__: list[str] = []
