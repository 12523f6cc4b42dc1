"""Fine-tune an encoder on each meeting, from a table of segments and its audio."""

from typing import TYPE_CHECKING

from ..common.lazy import lazy_names

__all__ = [
    "FinetuneConfig",
    "embed",
    "finetune",
    "load_finetuned",
    "predict",
    "read_config",
]

if TYPE_CHECKING:
    from .config import FinetuneConfig as FinetuneConfig
    from .config import read_config as read_config
    from .model.checkpoint import load_finetuned as load_finetuned
    from .prediction import embed as embed
    from .prediction import predict as predict
    from .run import finetune as finetune
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "FinetuneConfig": ".config",
            "embed": ".prediction",
            "finetune": ".run",
            "load_finetuned": ".model.checkpoint",
            "predict": ".prediction",
            "read_config": ".config",
        },
    )
