"""Read text and tables as people save them: encodings, separators, unexpected kinds of file."""
