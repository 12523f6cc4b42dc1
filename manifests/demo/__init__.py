"""A synthetic corpus with the layout of AISHELL-4."""
