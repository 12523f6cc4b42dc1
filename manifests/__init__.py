"""Turn meetings on disk into a table of segments."""

from typing import TYPE_CHECKING

from ..common.lazy import lazy_names

__all__ = [
    "InputError",
    "correct_table",
    "cut_segments",
    "leakage_report",
    "make_table",
    "read_corrections",
    "read_predictions",
    "read_rttm",
    "read_table",
    "read_textgrid",
    "read_turns",
    "read_uem",
    "select_segments",
    "split_table",
    "write_predictions",
    "write_table",
    "write_turns",
    "write_uem",
]

if TYPE_CHECKING:
    from ..common.errors import InputError as InputError
    from .corrections import correct_table as correct_table
    from .corrections import read_corrections as read_corrections
    from .cutting.cut import cut_segments as cut_segments
    from .formats.build import make_table as make_table
    from .formats.registry import read_turns as read_turns
    from .formats.registry import write_turns as write_turns
    from .formats.rttm import read_rttm as read_rttm
    from .formats.textgrid import read_textgrid as read_textgrid
    from .formats.uem import read_uem as read_uem
    from .formats.uem import write_uem as write_uem
    from .splits.leakage import leakage_report as leakage_report
    from .splits.select import select_segments as select_segments
    from .splits.split import split_table as split_table
    from .table import read_predictions as read_predictions
    from .table import read_table as read_table
    from .table import write_predictions as write_predictions
    from .table import write_table as write_table
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "InputError": "..common.errors",
            "correct_table": ".corrections",
            "cut_segments": ".cutting.cut",
            "leakage_report": ".splits.leakage",
            "make_table": ".formats.build",
            "read_corrections": ".corrections",
            "read_predictions": ".table",
            "read_rttm": ".formats.rttm",
            "read_table": ".table",
            "read_textgrid": ".formats.textgrid",
            "read_turns": ".formats.registry",
            "read_uem": ".formats.uem",
            "select_segments": ".splits.select",
            "split_table": ".splits.split",
            "write_predictions": ".table",
            "write_table": ".table",
            "write_turns": ".formats.registry",
            "write_uem": ".formats.uem",
        },
    )
