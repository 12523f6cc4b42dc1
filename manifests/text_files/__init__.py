"""Text and tables as people save them: encodings, separators, other kinds of file."""
