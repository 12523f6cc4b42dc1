"""Read and write ELAN's EAF (2.7 to 3.0): one tier per speaker, one annotation per turn.

Speakers are the tiers that are time-aligned and have no parent; child tiers repeat the speech of
their parent (words, translations) and are left out, with a note. `tiers` overrides this. The
speaker is the tier's name, or its PARTICIPANT if `participants` is true (several tiers may share
one). An annotation is a turn even if its text is empty; if its time slots have no time values, it
gives no turn and is counted. The session is the file's name. Times are whole milliseconds.

A document type (DTD) is refused: no program writes one, and its entities could fill the memory.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from ...common.counts import agree, counted
from ...common.errors import InputError
from ...common.files import atomic_write
from ...common.names import normal_name
from ..text_files.decoding import read_text
from ..text_files.kinds import check_kind
from .turns import Annotation, Note, Turn, collect_turns, read_files
from .writing import milliseconds, speakers_of

STEREOTYPES = {
    "Time_Subdivision": "Time subdivision of parent annotation's time interval, no time gaps "
    "allowed within this interval",
    "Symbolic_Subdivision": "Symbolic subdivision of a parent annotation. Annotations refering to "
    "the same parent are ordered",
    "Symbolic_Association": "1-1 association with a parent annotation",
    "Included_In": "Time alignable annotations within the parent annotation's time interval, gaps "
    "are allowed",
}
SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in XML 1.0


class _Cell(NamedTuple):
    """An annotation: its tier's speaker, its time slots and its text."""

    speaker: str
    slots: tuple[str, str]
    text: str


def read_eaf(
    path: str | Path,
    *,
    skip_bad: bool = False,
    tiers: Sequence[str] = (),
    participants: bool = False,
) -> Annotation:
    """Read one EAF file, or all ``*.eaf`` below a folder.

    Parameters
    ----------
    path
        File or folder, searched recursively.
    skip_bad
        Drop bad annotations and files, with a note each, instead of stopping at the first.
    tiers
        Names of the speakers' tiers, or patterns (``*``, ``?``); empty: see the module.
    participants
        Use PARTICIPANT as the speaker instead of the tier's name, if a tier has one.

    Returns
    -------
    Annotation
        Turns tier by tier, times in seconds; `line` numbers a file's annotations from 0.

    Raises
    ------
    InputError
        A file is not an EAF, none of its tiers is a speaker's, or an annotation is bad.
    """

    def read(file: Path, name: str) -> Annotation:
        return _read(file, name, [normal_name(tier) for tier in tiers], participants, skip_bad)

    return read_files(path, (".eaf",), read, skip_bad=skip_bad)


def _read(
    file: Path, name: str, tiers: Sequence[str], participants: bool, skip_bad: bool
) -> Annotation:
    root = _root(file, name)
    times = _times(root, name)
    chosen, notes = _speakers(root, name, tiers)
    cells = [cell for tier in chosen for cell in _cells(tier, participants)]
    timed = [cell for cell in cells if all(times.get(slot) is not None for slot in cell.slots)]
    annotation = collect_turns(
        enumerate(timed),
        lambda cell, index, place: Turn(
            *(file.stem, cell.speaker),
            *(times[cell.slots[0]] / 1000, times[cell.slots[1]] / 1000),
            *(index, place),
            text=cell.text,
        ),
        name,
        unit="annotation",
        skip_bad=skip_bad,
    )
    untimed = len(cells) - len(timed)
    if untimed:
        annotations = f"{counted(untimed, 'annotation')} without time"
        notes.append(
            Note("untimed", name, f"{annotations} {agree(untimed, 'gives', 'give')} no turn")
        )
    annotation.notes += notes
    return annotation


def _root(file: Path, name: str) -> ET.Element:
    """Return the root of an EAF document; raise `InputError` if it is another kind of file."""
    text = read_text(file)
    if "<ANNOTATION_DOCUMENT" not in text:
        check_kind(text, file, name, "an EAF")
        raise InputError(f"{name}: is not an EAF, expected <ANNOTATION_DOCUMENT>; name another")
    if re.search(r"<!(DOCTYPE|ENTITY)", text):
        raise InputError(f"{name}: has a document type, expected none as ELAN writes; delete it")
    try:
        return ET.fromstring(text.lstrip())  # noqa: S314 (without document type: no entities)
    except ET.ParseError as problem:
        raise InputError(
            f"{name}: is not XML ({problem}), expected an EAF; save it again in ELAN"
        ) from None


def _times(root: ET.Element, name: str) -> dict[str, int]:
    """Return ``{time slot: milliseconds}`` of the slots that have a time."""
    header = root.find("HEADER")
    units = "milliseconds" if header is None else header.get("TIME_UNITS", "milliseconds")
    if units != "milliseconds":
        raise InputError(
            f"{name}: TIME_UNITS is {units!r}, expected 'milliseconds'; save it again in ELAN"
        )
    times = {}
    for slot in root.iterfind("TIME_ORDER/TIME_SLOT"):
        value = slot.get("TIME_VALUE")
        if value is None:
            continue
        if not re.fullmatch(r"[0-9]{1,12}", value):
            raise InputError(
                f"{name}: TIME_VALUE of {slot.get('TIME_SLOT_ID')!r} is {value[:40]!r}, expected "
                "whole milliseconds; save the file again in ELAN"
            )
        times[slot.get("TIME_SLOT_ID", "")] = int(value)
    return times


def _speakers(
    root: ET.Element, name: str, tiers: Sequence[str]
) -> tuple[list[ET.Element], list[Note]]:
    """Return the tiers of speakers, and a note on those that were left out."""
    every = root.findall("TIER")
    chosen = [tier for tier in every if _is_speaker(tier, tiers)]
    names = [normal_name(tier.get("TIER_ID", "")) for tier in every]
    listed = ", ".join(map(repr, names[:8]))
    if every and tiers and not chosen:
        raise InputError(
            f"{name}: tiers are {listed}, expected {', '.join(tiers)}; correct --tiers"
        )
    left_out = [
        repr(own)
        for own, tier in zip(names, every, strict=True)
        if tier not in chosen and tier.find("ANNOTATION") is not None
    ]
    if not left_out:
        return chosen, []
    message = f"tiers: left out {', '.join(left_out)}; --tiers chooses the speakers'"
    return chosen, [Note("tiers", name, message)]


def _is_speaker(tier: ET.Element, tiers: Sequence[str]) -> bool:
    own = normal_name(tier.get("TIER_ID", ""))
    if tiers:
        return own in tiers or any(fnmatchcase(own, pattern) for pattern in tiers)
    return (
        tier.get("PARENT_REF") is None and tier.find("ANNOTATION/ALIGNABLE_ANNOTATION") is not None
    )


def _cells(tier: ET.Element, participants: bool) -> Iterator[_Cell]:
    own = tier.get("TIER_ID", "")
    speaker = (participants and tier.get("PARTICIPANT", "").strip()) or own
    for cell in tier.iterfind("ANNOTATION/*"):
        slots = (cell.get("TIME_SLOT_REF1", ""), cell.get("TIME_SLOT_REF2", ""))
        yield _Cell(speaker, slots, cell.findtext("ANNOTATION_VALUE") or "")


def write_eaf(turns: Sequence[Turn], path: str | Path) -> None:
    """Write the turns of one session as an EAF 3.0: a tier per speaker, whole milliseconds."""
    root = _document(len(turns))
    slots = _add_times(root, turns)
    numbers = {turn: number for number, turn in enumerate(turns, 1)}
    for speaker, spoken in speakers_of(turns).items():
        attributes = {"LINGUISTIC_TYPE_REF": "default-lt", "PARTICIPANT": speaker}
        tier = ET.SubElement(root, "TIER", attributes, TIER_ID=speaker)
        for turn in spoken:
            _add_annotation(tier, turn, slots[turn], numbers[turn])
    _add_types(root)
    ET.indent(root, "    ")
    atomic_write(path, ET.tostring(root, encoding="UTF-8", xml_declaration=True))


def _add_times(root: ET.Element, turns: Sequence[Turn]) -> dict[Turn, list[str]]:
    """Add a time slot for each start and each end, sorted; return the two slots of each turn."""
    order = ET.SubElement(root, "TIME_ORDER")
    slots: dict[Turn, list[str]] = {turn: ["", ""] for turn in turns}
    times = [(time, side, turn) for turn in turns for side, time in enumerate(milliseconds(turn))]
    for number, (time, side, turn) in enumerate(sorted(times, key=lambda slot: slot[:2]), 1):
        slots[turn][side] = f"ts{number}"
        ET.SubElement(order, "TIME_SLOT", TIME_SLOT_ID=f"ts{number}", TIME_VALUE=str(time))
    return slots


def _document(annotations: int) -> ET.Element:
    root = ET.Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "",
            "DATE": "1970-01-01T00:00:00+00:00",  # the same turns, the same bytes
            "FORMAT": "3.0",
            "VERSION": "3.0",
            "xmlns:xsi": INSTANCE,
            "xsi:noNamespaceSchemaLocation": SCHEMA,
        },
    )
    header = ET.SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    ET.SubElement(header, "PROPERTY", NAME="lastUsedAnnotationId").text = str(annotations)
    return root


def _add_annotation(tier: ET.Element, turn: Turn, slots: Sequence[str], number: int) -> None:
    annotation = ET.SubElement(
        ET.SubElement(tier, "ANNOTATION"),
        "ALIGNABLE_ANNOTATION",
        ANNOTATION_ID=f"a{number}",
        TIME_SLOT_REF1=slots[0],
        TIME_SLOT_REF2=slots[1],
    )
    ET.SubElement(annotation, "ANNOTATION_VALUE").text = UNWRITABLE.sub("", turn.text)


def _add_types(root: ET.Element) -> None:
    ET.SubElement(
        root,
        "LINGUISTIC_TYPE",
        GRAPHIC_REFERENCES="false",
        LINGUISTIC_TYPE_ID="default-lt",
        TIME_ALIGNABLE="true",
    )
    for stereotype, description in STEREOTYPES.items():
        ET.SubElement(root, "CONSTRAINT", DESCRIPTION=description, STEREOTYPE=stereotype)
