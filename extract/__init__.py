"""Extract layer-wise features of a table's segments into an HDF5 cache."""

from typing import TYPE_CHECKING

from ..common.lazy import lazy_names

__all__ = [
    "Encoder",
    "ExtractOptions",
    "FeatureStore",
    "StoreWriter",
    "extract",
    "import_vectors",
    "load_encoder",
]

if TYPE_CHECKING:
    from .encoder.encoder import Encoder as Encoder
    from .encoder.encoder import load_encoder as load_encoder
    from .options import ExtractOptions as ExtractOptions
    from .run import extract as extract
    from .store.importing import import_vectors as import_vectors
    from .store.reader import FeatureStore as FeatureStore
    from .store.writer import StoreWriter as StoreWriter
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "Encoder": ".encoder.encoder",
            "ExtractOptions": ".options",
            "FeatureStore": ".store.reader",
            "StoreWriter": ".store.writer",
            "extract": ".run",
            "import_vectors": ".store.importing",
            "load_encoder": ".encoder.encoder",
        },
    )
