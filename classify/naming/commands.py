"""The work of the ``spk name`` commands beyond calling a function: sources, and lines to print."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from ...common.counts import counted
from ...common.errors import InputError
from ...common.log import log
from .clips import enrol_clips
from .decision import Named, rounded_down
from .enrolment import enrol
from .options import EnrolOptions
from .voices import Voices
from .voices_file import change_voices, save_voices


def enrol_into(
    path: Path, sources: Mapping[str, Path | None], options: EnrolOptions, *, anew: bool = False
) -> Voices:
    """Add people to the voices in a file, which is created if absent, and return them.

    Parameters
    ----------
    sources
        `table`, `store` and `identity`, or `clips`.
    anew
        Start the file anew if it exists.

    Raises
    ------
    InputError
        As for `enrol` and `change_voices`.
    click.UsageError
        The sources cannot be combined.
    """
    _check_sources(sources, options)
    if not anew:
        return change_voices(path, lambda voices: _enrol(voices, path, sources, options))
    enrolled = _enrol(None, path, sources, options)
    save_voices(enrolled, path)
    return enrolled


def _enrol(
    voices: Voices | None, path: Path, sources: Mapping[str, Path | None], options: EnrolOptions
) -> Voices:
    """Return the voices with those of the sources added, and log how many segments are new."""
    clips, table, store = (sources[name] for name in ("clips", "table", "store"))
    if clips is not None:
        cache = f"{path}.features"
        layer, encoder = options.layer, options.encoder
        enrolled = enrol_clips(clips, cache, voices=voices, encoder=encoder, layer=layer)
    elif table is not None and store is not None:
        if options.audio_root is not None and not Path(options.audio_root).is_dir():
            raise InputError(
                f"{options.audio_root}: is not a folder, expected the recordings'; correct "
                "--audio-root"
            )
        enrolled = enrol(
            table,
            store,
            voices=voices,
            identity=sources["identity"],
            layer=options.layer,
            audio_root=options.audio_root,
        )
    new = len(enrolled.speech) - (0 if voices is None else len(voices.speech))
    log(f"{counted(new, 'segment', 'is')} new")
    return enrolled


def _check_sources(sources: Mapping[str, Path | None], options: EnrolOptions) -> None:
    """Raise `click.UsageError` unless the sources are TABLE and STORE, or --clips alone."""
    clips, store = sources["clips"], sources["store"]
    if (clips is None) == (store is None) or (clips is not None and sources["table"] is not None):
        raise click.UsageError("Give TABLE and STORE, or --clips FOLDER.")
    if clips is not None and (sources["identity"] is not None or options.audio_root is not None):
        raise click.UsageError("--identity and --audio-root belong to TABLE and STORE.")
    if clips is None and options.encoder is not None:
        raise click.UsageError("--encoder belongs to --clips; a store has its encoder.")


def cluster_lines(named: Named) -> Iterator[str]:
    """Yield a line for each cluster: its name, how probable, and why it is doubtful."""
    sessions = named.clusters["session"].nunique() > 1
    for row in named.clusters.to_dict("records"):
        place = f"{row['session']} " if sessions else ""
        sure = (
            "" if math.isnan(row["probability"]) else f"{rounded_down(row['probability'], 2):.2f}"
        )
        facts = [
            *([f"probability {sure}"] if sure else []),
            f"{row['seconds']:.1f} s",
            *([str(row["reason"])] if row["reason"] else []),
            *([f"perhaps {row['second']}"] if row["doubtful"] and row["second"] else []),
        ]
        mark = "  doubtful" if row["doubtful"] else ""
        yield f"{place}{row['cluster']} is {row['name']} ({', '.join(facts)}){mark}"
