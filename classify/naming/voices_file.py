"""The voices file: JSON and arrays in one npz, written atomically, read without pickle.

``description`` is the JSON as bytes: schema, configuration and fingerprint of the encoder, layer
and how it was chosen, names of persons and sessions, hashes of the enrolled speech with person and
session, samples to listen to, coefficients of the calibrator. ``person`` and ``session`` (n,) are
indices into the names; ``seconds`` (n,) and ``sums`` (n, dim) are those of the stretches;
``strangers`` (k,) are the probabilities from which thresholds are set.
"""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ...common.counts import counted
from ...common.errors import InputError, explain_write_errors
from ...common.files import atomic_write, is_special
from ...common.locks import lock_file
from ...extract.store.layout import fingerprint
from ...manifests.text_files.kinds import kind_of
from .calibration import Calibration, Calibrator
from .options import ZIP
from .stretches import Stretches
from .voices import Sample, Voices

SCHEMA = 1
KINDS = {"person": "i", "session": "i", "seconds": "f", "sums": "f", "strangers": "f"}
HEAD = 4000  # bytes that are enough to recognise another kind of file
LARGEST = 2**32  # bytes of all arrays


def save_voices(voices: Voices, path: str | Path) -> None:
    """Write voices to a file atomically; the same voices give the same bytes.

    Raises
    ------
    InputError
        The file cannot be written.
    """
    sums = voices.stretches
    sessions = sorted({*map(str, sums.sessions)})
    calibration = voices.calibration
    described = {
        "schema": SCHEMA,
        "fingerprint": voices.fingerprint,
        "configuration": dict(voices.config),
        "layer": voices.layer,
        "chosen": voices.chosen,
        "persons": voices.names,
        "sessions": sessions,
        "speech": {key: list(voices.speech[key]) for key in sorted(voices.speech)},
        "samples": [asdict(sample) for sample in voices.samples],
        "calibrator": None if calibration.calibrator is None else asdict(calibration.calibrator),
        "threshold_score": calibration.threshold_score,
        "loss": calibration.loss if math.isfinite(calibration.loss) else None,
        "known_trials": calibration.known_trials,
        "trials": calibration.trials,
    }
    text = json.dumps(described, ensure_ascii=False, indent=1).encode()
    file = io.BytesIO()
    np.savez(
        file,
        description=np.frombuffer(text, np.uint8),
        person=np.searchsorted(voices.names, sums.persons).astype(np.int32),
        session=np.searchsorted(sessions, sums.sessions).astype(np.int32),
        seconds=sums.seconds,
        sums=sums.sums,
        strangers=calibration.strangers,
    )
    atomic_write(path, file.getvalue())


def change_voices(path: Path, change: Callable[[Voices | None], Voices]) -> Voices:
    """Change the voices in a file, and return them.

    Concurrent commands lose nothing: if another one has written the file since it was read, the
    change is applied to its voices.

    Parameters
    ----------
    change
        Called with the file's voices, or None if there is no file; possibly several times.

    Raises
    ------
    InputError
        As for `load_voices` and `save_voices`.
    """
    while True:
        before = _content(path)
        voices = None if before is None else load_voices(path)
        changed = change(voices)
        if changed is voices:
            return changed
        with _alone(path):
            if _content(path) == before:
                save_voices(changed, path)
                return changed


def _content(path: Path) -> bytes | None:
    """Return a file's content; None if there is no file, b"" if it cannot be read."""
    if not os.path.lexists(path):
        return None
    with suppress(OSError):
        return path.read_bytes() if path.is_file() else b""
    return b""


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other commands from replacing a file, by a lock on its folder."""
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            with suppress(OSError):  # a disk without locks
                lock_file(folder, wait=True)
            yield
        finally:
            os.close(folder)


def load_voices(path: str | Path) -> Voices:
    """Read voices.

    Raises
    ------
    InputError
        There is no such file, or it is not one that `save_voices` wrote.
    """
    path = Path(path)
    if is_special(path):
        raise InputError(
            f"{path}: is a folder or device, expected voices, a file; correct the path"
        )
    try:
        data = path.read_bytes()
        _check_begins(data, path)
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            _check_size(arrays.zip)
            text = arrays["description"].tobytes()
            columns = {name: arrays[name] for name in KINDS}
        described = json.loads(text)
        _check_schema(described, path)
        return _voices(described, columns)
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file, expected voices; make it with spk name enrol"
        ) from None
    except InputError:
        raise
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError) as problem:
        raise _damaged(path, problem) from problem
    except (zipfile.BadZipFile, RecursionError, EOFError, NotImplementedError) as problem:
        raise _damaged(path, problem) from problem


def _damaged(path: Path, problem: Exception) -> InputError:
    return InputError(
        f"{path}: cannot be read as voices ({problem}), expected a file of spk name enrol; name "
        "that, or bring it back from a copy"
    )


def _check_begins(data: bytes, path: Path) -> None:
    """Raise `ValueError` for another kind of file, which numpy would treat as a pickle."""
    if not data:
        raise ValueError("it is empty")
    if not data.startswith(ZIP):
        kind = kind_of(data[:HEAD].decode(errors="replace"), path)
        raise ValueError(f"it is {kind.name}" if kind else "it is of another kind")


def _check_size(archive: Any) -> None:
    size = sum(member.file_size for member in archive.infolist())
    if size > LARGEST:
        raise ValueError(f"{counted(size, 'byte')} unpacked, more than voices hold")


def _check_schema(described: Any, path: Path) -> None:
    if not isinstance(described, Mapping):
        raise TypeError("its description is no JSON object")
    if described["schema"] != SCHEMA:
        raise InputError(
            f"{path}: schema is {described['schema']!r}, expected {SCHEMA}; use the spk version "
            "that wrote it"
        )
    if described["fingerprint"] != fingerprint(described["configuration"]):
        raise ValueError("the fingerprint is not that of the configuration")


def _voices(described: Mapping[str, Any], columns: Mapping[str, np.ndarray]) -> Voices:
    """Return the voices from a description and arrays; raise `ValueError` if they do not fit."""
    stretches = _stretches(described, columns)
    numbers = described["calibrator"]
    calibrator = None if numbers is None else Calibrator(**{k: float(numbers[k]) for k in numbers})
    strangers = columns["strangers"].astype(np.float64)
    if calibrator is not None and not len(strangers):
        raise ValueError("it has a calibrator and no strangers")
    return Voices(
        config=dict(described["configuration"]),
        layer=int(described["layer"]),
        chosen=str(described["chosen"]),
        stretches=stretches,
        speech={str(k): (str(v[0]), str(v[1])) for k, v in described["speech"].items()},
        samples=tuple(Sample(**sample) for sample in described["samples"]),
        learnt=Calibration(
            calibrator,
            strangers,
            float(described["threshold_score"]),
            math.inf if described["loss"] is None else float(described["loss"]),
            int(described["known_trials"]),
            int(described["trials"]),
        ),
    )


def _stretches(described: Mapping[str, Any], columns: Mapping[str, np.ndarray]) -> Stretches:
    wrong = [name for name, kind in KINDS.items() if columns[name].dtype.kind != kind]
    if wrong:
        raise ValueError(f"{wrong[0]} holds {columns[wrong[0]].dtype}")
    sums, seconds = columns["sums"], columns["seconds"].astype(np.float64)
    count, dim = sums.shape
    names = [np.array(described[key], dtype=str) for key in ("persons", "sessions")]
    codes = [columns["person"], columns["session"]]
    if not count or dim != described["configuration"]["dim"] or seconds.shape != (count,):
        raise ValueError(f"sums are {sums.shape}, seconds {seconds.shape}")
    for labels, code in zip(names, codes, strict=True):
        if code.shape != (count,) or set(code.tolist()) != set(range(len(labels))):
            raise ValueError("the numbers of persons or sessions do not fit their names")
        if labels.ndim != 1 or sorted(set(labels.tolist())) != labels.tolist():
            raise ValueError("names are not sorted, or given twice")
    if not (np.isfinite(sums).all() and np.isfinite(seconds).all() and (seconds > 0).all()):
        raise ValueError("sums or seconds are not finite")
    return Stretches(names[0][codes[0]], names[1][codes[1]], seconds, sums.astype(np.float32))
