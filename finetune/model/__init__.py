"""The encoder with its trainable part, the head, and their checkpoint."""
