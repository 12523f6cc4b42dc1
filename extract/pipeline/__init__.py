"""The extraction pipeline: decode, encode and write, on one device or several."""
