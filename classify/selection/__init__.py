"""Choice of layers, classifier and penalty on training and validation rows."""
