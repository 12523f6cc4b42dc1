"""Cached features become speaker names, scores and honest tables (no torch here)."""

from typing import TYPE_CHECKING

from ..common.lazy import lazy_names

__all__ = [
    "ExperimentResult",
    "SpeakerClassifier",
    "SpeakerModel",
    "SweepSettings",
    "audit",
    "compare",
    "fit",
    "link",
    "load_model",
    "measured_threshold",
    "predict",
    "run_experiment",
    "save_model",
    "score",
    "write_report",
]

if TYPE_CHECKING:
    from .auditing.run import audit as audit
    from .estimator import SpeakerClassifier as SpeakerClassifier
    from .evaluation.compare import compare as compare
    from .evaluation.measured_threshold import measured_threshold as measured_threshold
    from .evaluation.score import score as score
    from .experiment import ExperimentResult as ExperimentResult
    from .experiment import fit as fit
    from .experiment import run_experiment as run_experiment
    from .linking.people import link as link
    from .options import SweepSettings as SweepSettings
    from .report.page import write_report as write_report
    from .speaker_model import SpeakerModel as SpeakerModel
    from .speaker_model import predict as predict
    from .speaker_model_files import load_model as load_model
    from .speaker_model_files import save_model as save_model
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "ExperimentResult": ".experiment",
            "SpeakerClassifier": ".estimator",
            "SpeakerModel": ".speaker_model",
            "SweepSettings": ".options",
            "audit": ".auditing.run",
            "compare": ".evaluation.compare",
            "fit": ".experiment",
            "link": ".linking.people",
            "load_model": ".speaker_model_files",
            "measured_threshold": ".evaluation.measured_threshold",
            "predict": ".speaker_model",
            "run_experiment": ".experiment",
            "save_model": ".speaker_model_files",
            "score": ".evaluation.score",
            "write_report": ".report.page",
        },
    )
