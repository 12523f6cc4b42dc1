"""A table of segments and its audio become layer-wise features in an HDF5 cache (no torch here)."""

from importlib import import_module
from typing import Any

__all__ = ["FeatureStore", "StoreWriter"]
HOMES = {"FeatureStore": ".store.reader", "StoreWriter": ".store.writer"}


def __dir__() -> list[str]:
    """Name what can be had from here."""
    return __all__


def __getattr__(name: str) -> Any:
    """Import the store, and with it h5py, only when it is asked for."""
    if name in HOMES:
        return getattr(import_module(HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
