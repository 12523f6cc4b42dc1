"""The command ``spk-name``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...common.click_options import option, options_of
from ...common.commands import Group, exit_left_out, version_option, writes
from ...common.outputs import MEASURES, Output
from ...common.terminal import show
from .options import ZIP, EnrolOptions, NamingOptions, OutputOptions

_VOICES = click.argument("voices", type=click.Path(path_type=Path))


@click.group(cls=Group, context_settings={"auto_envvar_prefix": "SPK_NAME"})
@version_option
def main() -> None:
    """Put names on the speakers of a diarized meeting, from voices that you enrol."""


@main.command()
@_VOICES
@click.argument("table", type=click.Path(path_type=Path), required=False)
@click.argument("store", type=click.Path(path_type=Path), required=False)
@option("--clips", type=click.Path(path_type=Path), help="Folder of clips, NAME/*.wav.")
@option(
    "--identity",
    type=click.Path(path_type=Path),
    help="CSV session,speaker,person: who is enrolled, under which name.",
)
@options_of(EnrolOptions)
@writes(Output("voices", form=ZIP), overwrite="Restart VOICES.")
def enrol(
    voices: Path,
    table: Path | None,
    store: Path | None,
    clips: Path | None,
    identity: Path | None,
    overwrite: bool,
    **settings: Any,
) -> None:
    """Add people to the file VOICES, from a segment table and its store, or from clips.

    TABLE and STORE are a segment table and its features (spk extract); its speakers are the names,
    or --identity says who is who. --clips reads FOLDER/NAME/*.wav. Speech given more than once is
    enrolled once. Features of clips are kept in VOICES.features.
    """
    from .commands import enrol_into

    sources = {"table": table, "store": store, "clips": clips, "identity": identity}
    enrolled = enrol_into(voices, sources, EnrolOptions(**settings), anew=overwrite)
    click.echo("\n".join([*enrolled.summary(), f"wrote {voices}"]))


@main.command("apply")
@_VOICES
@click.argument("diarization", type=click.Path(path_type=Path))
@option("--audio", type=click.Path(path_type=Path), help="The recording, if there is one session.")
@option(
    "--audio-root",
    type=click.Path(path_type=Path),
    help="Folder of the recordings, named after their sessions.",
)
@option("--output", "-o", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@options_of(NamingOptions)
@options_of(OutputOptions)
@writes(Output("output", folder=True, mark="naming.json"))
def apply_names(
    voices: Path,
    diarization: Path,
    audio: Path | None,
    audio_root: Path | None,
    output: Path,
    overwrite: bool,
    **settings: Any,
) -> None:
    """Give the speakers of DIARIZATION the names of VOICES, and unknown_1, ... to strangers.

    DIARIZATION is an RTTM, a WhisperX JSON, an EAF, a lhotse JSONL, a NeMo manifest or a Kaldi
    directory; where it lists its recordings, neither --audio nor --audio-root is needed. The output
    folder receives SESSION.rttm, SESSION.json, names.csv and the other --formats; features are kept
    in its folder features for the next run. Exit code 3: some names are doubtful.
    """
    from .commands import cluster_lines
    from .meeting import apply
    from .output import write_named
    from .voices_file import load_voices

    formats, review = settings.pop("formats"), settings.pop("review")
    named = apply(
        load_voices(voices),
        diarization,
        audio=audio,
        audio_root=audio_root,
        cache=output,
        **settings,
    )
    wanted = OutputOptions(formats=formats, review=review)
    written = write_named(
        named,
        output,
        diarization=diarization,
        formats=wanted.format_names,
        review=review,
        overwrite=overwrite,
    )
    for line in cluster_lines(named):
        click.echo(line)
    click.echo(f"wrote {output}: {', '.join(path.name for path in written)}")
    exit_left_out(named.clusters["doubtful"])


@main.command()
@click.argument("named", type=click.Path(path_type=Path), metavar="OUT")
@click.argument("reference", type=click.Path(path_type=Path))
@option("--uem", type=click.Path(path_type=Path), help="What is scored: session channel start end.")
@option("--output", "-o", type=click.Path(path_type=Path), help="Every number, as .csv or .json.")
@writes(Output("output", MEASURES))
def score(named: Path, reference: Path, uem: Path | None, output: Path | None) -> None:
    """Measure the names in the folder OUT against REFERENCE, an RTTM with the true names.

    Prints the open-set identification error by time: speech that is missed, false, or under the
    wrong name; for people not enrolled, unknown is right.
    """
    from ..output import write_metrics
    from .error_rate import error_lines
    from .error_rate import score as measure

    table = measure(named, reference, uem=uem)
    if output is not None:
        write_metrics(table, output)
    error_lines(table, click.echo)
    if output is not None:
        click.echo(f"wrote {output}")


@main.command("list")
@_VOICES
def list_people(voices: Path) -> None:
    """List who is enrolled in VOICES, with how much speech, and how scores are calibrated."""
    from ..output import number_table
    from .voices_file import load_voices

    enrolled = load_voices(voices)
    show(number_table(enrolled.table()), *enrolled.summary())


@main.command()
@_VOICES
@click.argument("name")
def remove(voices: Path, name: str) -> None:
    """Remove the person NAME and all their speech from VOICES."""
    from ...common.names import normal_name
    from .voices_file import change_voices, load_voices

    name = normal_name(name)
    fewer = change_voices(voices, lambda there: (there or load_voices(voices)).remove(name))
    click.echo("\n".join([*fewer.summary(), f"wrote {voices}"]))
