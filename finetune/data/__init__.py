"""Read segments as batches of waveforms, and augment them."""
