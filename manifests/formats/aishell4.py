"""AISHELL-4's session names (date, room, series), and the scope of its speaker ids.

Train sessions are called ``YYYYMMDD_{L,M,S}_R###S##C##``, test sessions the same without the date
(Fu et al., 2021, arXiv 2104.03603, and the corpus's file lists). Speaker ids are local to their
session. Within a *series*, sessions of one date and room, the same id is almost always the same
person; in the test set 113 of 114 are, and 001-M of M_R003S05C01 is not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...common.errors import InputError

SCOPES = ("session", "series", "corpus")
NAME = re.compile(r"(?:(\d{8})_)?([LMS])_(R\d{3})(S\d{2})(C\d{2})")


@dataclass(frozen=True)
class SessionName:
    """The parts of an AISHELL-4 session name."""

    session: str
    date: str  # YYYYMMDD, or "" in the test set
    size: str  # L, M or S: large, medium, small room
    room: str  # R###
    number: str  # S##
    device: str  # C##

    @property
    def series(self) -> str:
        """Return the prefix shared by sessions of one date and room, as in ``20200706_L_R001``."""
        return "_".join(part for part in (self.date, self.size, self.room) if part)


def parse_session(session: str) -> SessionName:
    """Parse an AISHELL-4 session name, of the train or the test set.

    >>> parse_session("20200706_L_R001S01C01").series
    '20200706_L_R001'
    >>> parse_session("M_R003S05C01").series
    'M_R003'

    Raises
    ------
    InputError
        The name does not have that form.
    """
    match = NAME.fullmatch(session)
    if match is None:
        raise InputError(
            f"session: name is {session!r}, expected YYYYMMDD_L_R001S01C01 or L_R001S01C01; "
            "use --scope session, or an identity file"
        )
    return SessionName(session, match[1] or "", *match.groups()[1:])


def scoped_speaker(session: str, speaker: str, scope: str = "session") -> str:
    """Return the label of a session's local speaker id, unique within `scope`.

    >>> scoped_speaker("20200706_L_R001S01C01", "001-M")
    '20200706_L_R001S01C01_001-M'
    >>> scoped_speaker("20200706_L_R001S01C01", "001-M", "series")
    '20200706_L_R001_001-M'
    """
    if scope == "session":
        return f"{session}_{speaker}"
    if scope == "series":
        return f"{parse_session(session).series}_{speaker}"
    if scope == "corpus":
        return speaker
    raise InputError(f"scope: is {scope!r}, expected one of {', '.join(SCOPES)}; correct it")


def local_speaker(session: str, speaker: str) -> str:
    """Strip the session or series prefix from a label, leaving the id as annotated.

    >>> local_speaker("20200706_L_R001S01C01", "20200706_L_R001_001-M")
    '001-M'
    """
    if speaker.startswith(f"{session}_"):
        return speaker.removeprefix(f"{session}_")
    if NAME.fullmatch(session):
        return speaker.removeprefix(f"{parse_session(session).series}_")
    return speaker


def series_speaker(session: str, speaker: str) -> str:
    """Return the label of the person in the series, whatever scope `speaker` is in.

    Raises
    ------
    InputError
        `session` is not an AISHELL-4 name, so that its series is unknown.
    """
    return scoped_speaker(session, local_speaker(session, speaker), "series")
