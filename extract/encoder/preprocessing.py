"""Read an encoder's input settings from its folder, or assume them if there are none.

transformers 5 writes ``processor_config.json``, with the feature extractor's settings nested as
``feature_extractor`` (sometimes ``audio_processor``); transformers 4 wrote only those settings, as
``preprocessor_config.json``. Both are read in transformers' own order: nested settings win, and a
missing setting has its class's default. Without either file, fairseq's training convention is
assumed: 16 kHz, waveforms normalised if the front end has layer norm, unchanged if it has group
norm. That is a guess, so it is noted and recorded as assumed; ``--normalize`` overrides it.

Padding settings (`padding_value`, `return_attention_mask`) have no effect here, since no real frame
sees padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...common.errors import InputError
from .files import read_json

NORMALIZED = "zero mean, unit variance per segment"  # population variance, epsilon 1e-7
NOT_NORMALIZED = "none"
NORMALIZE = {"yes": NORMALIZED, "no": NOT_NORMALIZED}  # values of --normalize
WAVEFORM_EXTRACTOR = "Wav2Vec2FeatureExtractor"
EXTRACTOR = "SeamlessM4TFeatureExtractor"
LOG_MEL = f"log-mel of {EXTRACTOR}, zero mean and unit variance per bin and segment"
STRIDE = 2  # log-mel frames of 10 ms per encoder frame
RATE = 16000  # Hz

PROCESSOR, PREPROCESSOR = "processor_config.json", "preprocessor_config.json"
NESTED = ("feature_extractor", "audio_processor")


@dataclass(frozen=True)
class InputSettings:
    """How waveforms are prepared for an encoder.

    Attributes
    ----------
    normalization
        `NORMALIZED`, `NOT_NORMALIZED` or `LOG_MEL`.
    rate
        Sample rate in Hz.
    assumed
        Which of the two neither a file nor an option specifies.
    notes
        Notes for the user, a line each.
    """

    normalization: str
    rate: int
    assumed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_extractor(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the feature extractor's settings and their file, or None if there are none."""
    processor = folder / PROCESSOR
    if processor.is_file():
        settings = read_json(processor)
        nested = settings.get(NESTED[0], settings.get(NESTED[1]))
        if nested is not None:
            if not isinstance(nested, dict):
                raise _unfit(processor, NESTED[0], nested, "a JSON object")
            return processor, nested
    path = folder / PREPROCESSOR
    return (path, read_json(path)) if path.is_file() else None


def waveform_input(folder: Path, config: dict[str, Any], normalize: str | None) -> InputSettings:
    """Return the input settings of an encoder of wav2vec2's kind.

    Parameters
    ----------
    config
        The encoder's config.json.
    normalize
        Value of --normalize, ``yes`` or ``no``, which wins; None leaves it to the folder.

    Raises
    ------
    InputError
        The folder's feature extractor is of another kind, or has an unsupported setting.
    """
    extractor = read_extractor(folder)
    if extractor is None:
        return _assumed_input(folder, config, normalize)
    path, settings = extractor
    # As in transformers: the extractor's own setting, then the model's, then the default.
    kind = settings.get("feature_extractor_type", config.get("feature_extractor_type"))
    if kind not in (None, WAVEFORM_EXTRACTOR):
        raise _unfit(path, "feature_extractor_type", kind, repr(WAVEFORM_EXTRACTOR))
    if settings.get("feature_size", 1) != 1:
        raise _unfit(path, "feature_size", settings["feature_size"], "1, one number per sample")
    says = settings.get("do_normalize", True)
    if says not in (True, False, None):
        raise _unfit(path, "do_normalize", says, "true or false")
    normalization = NORMALIZED if says else NOT_NORMALIZED
    notes: tuple[str, ...] = ()
    if normalize is not None and NORMALIZE[normalize] != normalization:
        notes = (f"--normalize: {normalize!r} is used, though {path} says the opposite",)
        normalization = NORMALIZE[normalize]
    return InputSettings(normalization, _rate(path, settings), notes=notes)


def _assumed_input(folder: Path, config: dict[str, Any], normalize: str | None) -> InputSettings:
    layer = config.get("feat_extract_norm", "group") == "layer"
    layer = layer or config["model_type"] == "data2vec-audio"
    where = f"{folder}: neither {PROCESSOR} nor {PREPROCESSOR} describes the input"
    if normalize is not None:
        note = f"{where}; a sample rate of {RATE} Hz is assumed"
        return InputSettings(NORMALIZE[normalize], RATE, ("rate",), (note,))
    guess = "normalised waveforms" if layer else "waveforms that are not normalised"
    note = (
        f"{where}; {guess} (as fairseq trained encoders with {'layer' if layer else 'group'} norm) "
        f"and a sample rate of {RATE} Hz are assumed, which may be wrong; save the feature "
        "extractor there, or pass --normalize yes or --normalize no"
    )
    normalization = NORMALIZED if layer else NOT_NORMALIZED
    return InputSettings(normalization, RATE, ("normalization", "rate"), (note,))


def mel_input(folder: Path, config: dict[str, Any], normalize: str | None) -> InputSettings:
    """Return the input settings of w2v-BERT, whose feature extractor must be present and match."""
    if normalize is not None:
        raise InputError(
            f"--normalize: value is {normalize!r} for {folder}, whose log-mel features are always "
            "normalised, expected none; leave it out"
        )
    extractor = read_extractor(folder)
    if extractor is None:
        raise InputError(
            f"{folder / PREPROCESSOR}: file is missing, expected the settings of {EXTRACTOR} there "
            f"or in {PROCESSOR}; save them there"
        )
    path, settings = extractor
    bins = config.get("feature_projection_input_dim", 80 * STRIDE) // STRIDE
    kind = settings.get("feature_extractor_type", config.get("feature_extractor_type"))
    _expect(path, "feature_extractor_type", kind, EXTRACTOR)
    _expect(path, "stride", settings.get("stride", 2), STRIDE)
    _expect(path, "num_mel_bins", settings.get("num_mel_bins", 80), bins)
    if settings.get("feature_size", 80) == 1:  # other values only concern padding
        raise _unfit(path, "feature_size", 1, f"{bins}, the number of mel bins")
    # Other kinds have tables of positions, which a cast to bfloat16 would round.
    positions = config.get("position_embeddings_type", "relative_key")
    _expect(folder / "config.json", "position_embeddings_type", positions, "relative_key")
    return InputSettings(LOG_MEL, _rate(path, settings))


def _rate(path: Path, settings: dict[str, Any]) -> int:
    rate = settings.get("sampling_rate", RATE)
    if type(rate) not in (int, float) or not float(rate).is_integer() or rate < 1:
        raise _unfit(path, "sampling_rate", rate, "a whole number of Hz")
    return int(rate)


def _expect(path: Path, name: str, value: object, expected: object) -> None:
    if value != expected:
        raise InputError(
            f"{path}: {name} is {value!r}, expected {expected!r}; choose an encoder like "
            "facebook/w2v-bert-2.0"
        )


def _unfit(path: Path, name: str, value: object, expected: str) -> InputError:
    return InputError(
        f"{path}: {name} is {value!r}, expected {expected}; correct the file, or choose another "
        "encoder"
    )
