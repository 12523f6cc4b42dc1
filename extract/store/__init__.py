"""The feature store: immutable HDF5 shards in a folder."""
