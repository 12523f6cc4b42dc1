"""A frozen speech encoder: checkpoint, front end, transformer layers, pooling."""
