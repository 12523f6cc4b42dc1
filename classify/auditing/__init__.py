"""Find turns that carry the wrong name: what `spk-classify audit` does."""
