"""Name the speakers of a diarized meeting after enrolled voices."""

from typing import TYPE_CHECKING

from ...common.lazy import lazy_names

__all__ = [
    "Named",
    "Voices",
    "apply",
    "enrol",
    "enrol_clips",
    "load_voices",
    "save_voices",
    "score",
    "write_named",
]

if TYPE_CHECKING:
    from .clips import enrol_clips as enrol_clips
    from .decision import Named as Named
    from .enrolment import enrol as enrol
    from .error_rate import score as score
    from .meeting import apply as apply
    from .output import write_named as write_named
    from .voices import Voices as Voices
    from .voices_file import load_voices as load_voices
    from .voices_file import save_voices as save_voices
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "Named": ".decision",
            "Voices": ".voices",
            "apply": ".meeting",
            "enrol": ".enrolment",
            "enrol_clips": ".clips",
            "load_voices": ".voices_file",
            "save_voices": ".voices_file",
            "score": ".error_rate",
            "write_named": ".output",
        },
    )
