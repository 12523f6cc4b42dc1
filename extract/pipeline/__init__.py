"""Decode, encode and write, on one device or several."""
