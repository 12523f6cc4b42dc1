"""The foundation of `spk`, used by every other package."""
