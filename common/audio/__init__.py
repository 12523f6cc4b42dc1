"""Recordings: what a file holds, and its samples, to the sample."""
