"""Meetings on disk become a table of segments."""

from .table import InputError, read_predictions, read_table, write_predictions, write_table

__all__ = ["InputError", "read_predictions", "read_table", "write_predictions", "write_table"]
