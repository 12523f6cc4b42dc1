"""A meeting of real voices that ships with spk: under two minutes, seven people, their turns.

::

    OUT/wav/sample.ogg        16 kHz, Ogg/Opus
    OUT/TextGrid/sample.rttm
    OUT/LICENCE.txt           whose voices these are: LibriSpeech, CC BY 4.0
    OUT/clips/NAME/1.flac ... what six of the seven say in the first half, a turn a file
    OUT/meeting.json          the second half as a diarizer gives it: SPEAKER_00, SPEAKER_01, ...
    OUT/truth.rttm            who speaks in it really, for `spk-name score`

Read English, cut at its pauses and rearranged, in a simulated room (made by
`recipes/small_encoder/sample.py`). The encoder `small` was not trained on these seven people, but
they are among the 82 speakers on whom it was selected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from ...common.errors import InputError
from ...common.files import atomic_write

if TYPE_CHECKING:
    from ..formats.turns import Turn

SAMPLE = Path(__file__).with_name("sample")
PLACES = {"sample.ogg": "wav", "sample.rttm": "TextGrid", "LICENCE.txt": "."}
HALF = 55.0  # s: earlier turns become clips of known voices, later ones the meeting to name
STRANGER = "ls250"  # has no clip


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
        The recording, its turns, the licence, the folder of clips, the meeting to name and its
        true names.

    Raises
    ------
    InputError
        The installed package lacks the meeting, or `out` cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     [path.name for path in write_sample(folder)]
    ['sample.ogg', 'sample.rttm', 'LICENCE.txt', 'clips', 'meeting.json', 'truth.rttm']
    """
    from ..formats.rttm import read_rttm, write_rttm
    from ..formats.whisperx import write_whisperx

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
    turns = sorted(read_rttm(paths[1]).turns, key=lambda turn: turn.start)
    clips, meeting = Path(out) / "clips", Path(out) / "meeting.json"
    for name, content in _clips([turn for turn in turns if turn.start < HALF], paths[0]):
        atomic_write(clips / name, content)
    named = [turn._replace(session=meeting.stem) for turn in turns if turn.start >= HALF]
    write_whisperx([*_diarized(named)], meeting)
    write_rttm(named, Path(out) / "truth.rttm")
    return [*paths, clips, meeting, Path(out) / "truth.rttm"]


def _clips(turns: Sequence[Turn], recording: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each clip of a known voice."""
    import soundfile

    samples, rate = soundfile.read(recording, dtype="int16")
    numbers: Counter[str] = Counter()
    for turn in turns:
        if turn.speaker != STRANGER:
            numbers[turn.speaker] += 1
            clip = BytesIO()
            part = samples[round(turn.start * rate) : round(turn.end * rate)]
            soundfile.write(clip, part, rate, format="FLAC")
            yield f"{turn.speaker}/{numbers[turn.speaker]}.flac", clip.getvalue()


def _diarized(turns: Iterable[Turn]) -> Iterator[Turn]:
    """Yield the turns with a diarizer's names, numbered by who speaks first."""
    names: dict[str, str] = {}
    for turn in turns:
        name = names.setdefault(turn.speaker, f"SPEAKER_{len(names):02d}")
        yield turn._replace(speaker=name)
