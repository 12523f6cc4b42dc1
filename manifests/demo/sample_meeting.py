"""A meeting of real voices that ships with spk: under two minutes, seven people, their turns.

::

    OUT/wav/sample.ogg        16 kHz, Ogg/Opus
    OUT/TextGrid/sample.rttm
    OUT/LICENCE.txt           whose voices these are: LibriSpeech, CC BY 4.0

Read English, cut at its pauses and put in another order, in a simulated room
(`recipes/small_encoder/sample.py` made it). The encoder `small` was not trained on these seven, but
they are among the 82 speakers on whom it was chosen.
"""

from __future__ import annotations

from pathlib import Path

from ...common.errors import InputError
from ...common.files import atomic_write

SAMPLE = Path(__file__).with_name("sample")
PLACES = {"sample.ogg": "wav", "sample.rttm": "TextGrid", "LICENCE.txt": "."}


def write_sample(out: str | Path) -> list[Path]:
    """Write the sample meeting to a folder; see the module for its files.

    Parameters
    ----------
    out
        Folder; files of the same names there are overwritten (by the command only with
        --overwrite).

    Returns
    -------
    list of Path
        The recording, its turns and the licence.

    Raises
    ------
    InputError
        The installed package lacks the meeting, or `out` cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     [path.name for path in write_sample(folder)]
    ['sample.ogg', 'sample.rttm', 'LICENCE.txt']
    """
    paths = []
    for name, place in PLACES.items():
        source = SAMPLE / name
        if not source.is_file():
            raise InputError(
                f"{source}: no such file, expected it in the package; install spk-toolkit again"
            )
        path = Path(out) / place / name
        atomic_write(path, source.read_bytes())
        paths.append(path)
    return paths
