"""Which segments are used, and how they are split into train, valid and test."""
