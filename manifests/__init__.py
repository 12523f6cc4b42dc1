"""Meetings on disk become a table of segments."""

from ..common.errors import InputError
from .table import read_predictions, read_table, write_predictions, write_table

__all__ = ["InputError", "read_predictions", "read_table", "write_predictions", "write_table"]
