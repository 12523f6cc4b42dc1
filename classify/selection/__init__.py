"""Which layers, classifier and penalty: chosen on training and validation rows."""
