"""spk tells who speaks in each segment of a meeting."""

__version__ = "0.2.0"
__all__ = ["__version__"]
