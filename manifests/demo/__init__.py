"""A synthetic corpus of the shape of AISHELL-4."""
