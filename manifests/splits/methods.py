"""The six methods to divide segments into train, valid and test.

A speaker's segments in a session are ordered by start, end and id, so the order of rows never
matters. Shares are shares of a speaker's number of segments in a session. All methods but `random`
end with a purge (`manifests/splits/leakage.py`). Each returns the splits (n,) in the order of rows
('' is purged) and the number of purged segments by reason.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ...common.counts import counted
from ...common.errors import InputError
from ...common.names import normal_name
from ...common.options import DEFAULT_SEED
from .leakage import KEEP_TEST, KEEP_TRAIN, purge_leaks
from .overlap import group_codes, has_common_clock
from .roll_call import roll_call_mask

Assigned = tuple[np.ndarray, dict[str, int]]  # split (n,) str, and number purged by reason


def chronological(
    table: pd.DataFrame, *, test_share: float = 0.2, valid_share: float = 0.15, gap: float = 2.0
) -> Assigned:
    """Take each speaker's last segments for test, and the last of the rest for validation.

    Parameters
    ----------
    test_share
        Share of a speaker's segments in a session, 0..1 exclusive; at least one segment if the
        speaker has two, and never the first.
    valid_share
        Share of the rest, 0 (none) to 1 exclusive; at least one if the speaker has three.
    gap
        Distance in s, >= 0, up to which segments of different splits are too near.
    """
    _share("test_share", test_share, positive=True)
    _share("valid_share", valid_share)
    rank, size = _order(table)
    tests = _share_to_count(size, test_share)
    valids = _share_to_count(size - tests, valid_share)
    place = [rank >= size - tests, rank >= size - tests - valids]
    return purge_leaks(
        table, np.select(place, ["test", "valid"], "train"), gap=gap, order=KEEP_TEST
    )


def blocked(table: pd.DataFrame, *, folds: int = 5, fold: int = 0, gap: float = 2.0) -> Assigned:
    """Cut each speaker's segments into blocks in order of time; one is test, the next validation.

    The roll call stays in train; every other segment is test in exactly one fold (a speaker with
    fewer segments than folds is not tested in all of them).

    Parameters
    ----------
    folds
        Number of blocks, >= 3.
    fold
        The block that is test, 0 to folds - 1.
    gap
        Distance in s, >= 0, up to which segments of different splits are too near.
    """
    if folds < 3:
        raise InputError(f"folds: is {folds}, expected >= 3 (test, valid, train); correct it")
    if not 0 <= fold < folds:
        raise InputError(f"fold: is {fold}, expected 0 to {folds - 1}; correct it")
    block = time_blocks(table, folds, roll_call_mask(table))
    place = [block == fold, block == (fold + 1) % folds]
    return purge_leaks(
        table, np.select(place, ["test", "valid"], "train"), gap=gap, order=KEEP_TEST
    )


def time_blocks(table: pd.DataFrame, folds: int, reserved: np.ndarray) -> np.ndarray:
    """Return the block (n,) int of each segment: 0 to `folds` - 1, by time within its speaker.

    Segments that are `reserved` (n,) bool are in no block and get a negative number.
    """
    rank, size = _order_after(table, reserved)
    return rank * folds // np.maximum(size, folds)


def leave_one_session_out(
    table: pd.DataFrame,
    *,
    session: str,
    valid_share: float = 0.15,
    gap: float = 2.0,
    unknown: str = "refuse",
) -> Assigned:
    """Take one session for test, and the last segments of each speaker elsewhere for validation.

    For cut files without times, nothing is purged, and a speaker's last segments are those with the
    last annotation lines.

    Parameters
    ----------
    session
        The session that is test.
    valid_share
        Share of a speaker's segments in each other session, 0 (none) to 1 exclusive.
    gap
        Distance in s, >= 0, up to which segments of different splits are too near.
    unknown
        What to do with a speaker who is only in that session: `refuse`, or `purge`.
    """
    _share("valid_share", valid_share)
    if unknown not in ("refuse", "purge"):
        raise InputError(f"unknown: is {unknown!r}, expected 'refuse' or 'purge'; correct it")
    session = normal_name(session)
    tested = (table["session"] == session).to_numpy()
    if not tested.any():
        raise InputError(f"session: {session!r} is not in the table, expected one of its sessions")
    rank, size = _order(table)
    place = [tested, rank >= size - _share_to_count(size, valid_share)]
    splits = np.select(place, ["test", "valid"], "train").astype(object)
    stranger = tested & ~table["speaker"].isin(table["speaker"][~tested]).to_numpy()
    _check_known(table["speaker"][tested], table["speaker"][stranger], session, unknown)
    splits[stranger] = ""
    counts: dict[str, int] = {}
    if has_common_clock(table):
        splits, counts = purge_leaks(table, splits, gap=gap, order=KEEP_TEST)
    if not (splits == "test").any():
        raise InputError(
            f"session {session}: 0 of its {counted(tested.sum(), 'segment')} are left to test "
            f"({stranger.sum()} are of speakers in no other session), expected at least 1; make "
            "the table with --scope series or corpus or with --identity, or name another session"
        )
    return splits, {**counts, "unknown speaker": int(stranger.sum())}


def enrolment_seconds(
    table: pd.DataFrame, *, seconds: float = 15.0, valid_share: float = 0.15, gap: float = 2.0
) -> Assigned:
    """Train on the first seconds of each speaker's speech in a session, test on the rest.

    Validation is the part of the rest that follows the enrolment: it chooses layers and penalties,
    but no voice is learnt from it. If segments leak, the enrolment stays whole, since it is short,
    and the later part gives way: validation to train, test to both.

    Parameters
    ----------
    seconds
        Speech in s, > 0; whole segments are added while that brings their sum nearer to it, and at
        least one, so the error is at most half a segment (or more if the first one is longer).
    valid_share
        Share of the rest, 0 (none) to 1 exclusive.
    gap
        Distance in s, >= 0, up to which segments of different splits are too near.
    """
    if not seconds > 0:
        raise InputError(f"seconds: is {seconds:g} s, expected > 0; correct it")
    ordered = _ordered(table)
    length = (ordered["end"] - ordered["start"]).round(6)
    speaker = [ordered["session"], ordered["speaker"]]
    spoken = length.groupby(speaker).cumsum() - length
    # Rounded again, since 10.000000001 s before a segment are 10 s.
    nearer = (spoken == 0) | ((spoken + length / 2).round(6) <= seconds)
    enrolled = nearer.groupby(speaker).cummin().astype(bool)  # none after one that is left out
    return _train_then_valid_test(table, enrolled.sort_index().to_numpy(), valid_share, gap)


def roll_call(table: pd.DataFrame, *, valid_share: float = 0.15, gap: float = 2.0) -> Assigned:
    """Train on the opening roll call alone, test on the rest (validation as in `enrol`).

    Speakers who do not answer the roll call are purged and counted.

    Parameters
    ----------
    valid_share
        Share of the rest, 0 (none) to 1 exclusive.
    gap
        Distance in s, >= 0, up to which segments of different splits are too near.
    """
    train = roll_call_mask(table)
    missing = sorted(set(table["session"]) - set(table["session"][train]))
    if missing:
        raise InputError(
            f"table: {counted(len(missing), 'session', 'has')} no roll call, first "
            f"{missing[0]!r}, expected turns of different speakers at the start; select with "
            "--keep-roll-call, or use enrol"
        )
    splits, counts = _train_then_valid_test(table, train, valid_share, gap)
    speaker = group_codes(table, ("session", "speaker"))
    absent = ~np.isin(speaker, speaker[train])
    counts["not enrolled"] = int((absent & (splits != "")).sum())
    splits[absent] = ""
    return splits, counts


def random(
    table: pd.DataFrame,
    *,
    test_share: float = 0.2,
    valid_share: float = 0.0,
    seed: int = DEFAULT_SEED,
    within: str = "session",
) -> Assigned:
    """Draw test segments at random per speaker: the reference project's split, which leaks.

    It draws the same rows as scikit-learn's ``train_test_split(test_size=0.2, random_state=42,
    stratify=labels)`` for rows in the order of the reference CSV (session, speaker, line). Half of
    the test segments adjoin a training segment of their speaker. Only roll-call segments drawn for
    test are purged; in cut files without times, the roll call cannot be found.

    Parameters
    ----------
    test_share
        Share of all segments, 0..1 exclusive.
    valid_share
        Share of the rest, drawn likewise, 0 (none) to 1 exclusive.
    seed
        `random_state`, 0 to 2**32 - 1.
    within
        Draw in each `session` separately (session models), or in the whole `corpus` at once.
    """
    _share("test_share", test_share, positive=True)
    _share("valid_share", valid_share)
    if within not in ("session", "corpus"):
        raise InputError(f"within: is {within!r}, expected 'session' or 'corpus'; correct it")
    if not 0 <= seed < 2**32:
        raise InputError(f"seed: is {seed}, expected 0 to {2**32 - 1}; correct it")
    ordered = _ordered(table, by_line=True)
    parts = [ordered] if within == "corpus" else [part for _, part in ordered.groupby("session")]
    splits = np.full(len(table), "train", dtype=object)
    for part in parts:
        train, test = _draw(part, test_share, seed, "--test-share")
        splits[test.index] = "test"
        if valid_share:
            splits[_draw(train, valid_share, seed, "--valid-share")[1].index] = "valid"
    if not has_common_clock(table):
        return splits, {}
    opening = roll_call_mask(table) & (splits == "test")
    splits[opening] = ""
    return splits, {"roll call": int(opening.sum())}


def _train_then_valid_test(
    table: pd.DataFrame, train: np.ndarray, valid_share: float, gap: float
) -> Assigned:
    """Assign validation, then test, after `train`, which has each speaker's first segments."""
    _share("valid_share", valid_share)
    rank, size = _order_after(table, train)
    place = [train, rank < _share_to_count(size, valid_share)]
    return purge_leaks(
        table, np.select(place, ["train", "valid"], "test"), gap=gap, order=KEEP_TRAIN
    )


def _draw(
    table: pd.DataFrame, share: float, seed: int, option: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    from sklearn.model_selection import train_test_split

    try:
        return train_test_split(
            table, test_size=share, random_state=seed, stratify=table["speaker"]
        )
    except ValueError:
        left = "" if option == "--test-share" else " that are not test"
        raise InputError(
            f"session {table['session'].iloc[0]!r}: {option} {share:g} of its "
            f"{counted(len(table), 'segment')}{left} of "
            f"{counted(table['speaker'].nunique(), 'speaker')} cannot be drawn by speaker, "
            f"expected at least 1 of each on both sides; {_share_that_fits(table, option)}"
        ) from None


def _share_that_fits(table: pd.DataFrame, option: str) -> str:
    """Return a repair: the smallest share that can be drawn by speaker, or fewer speakers."""
    counts = table["speaker"].value_counts()
    if counts.min() < 2:
        return f"select with --min-segments {2 if option == '--test-share' else 3}"
    share = np.ceil(100 * len(counts) / len(table)) / 100
    return f"give {option} {share:g}"


def _ordered(table: pd.DataFrame, *, by_line: bool = False) -> pd.DataFrame:
    """Return the rows by session, speaker and time (or line), their old positions as index."""
    clock = has_common_clock(table)  # files cut out of sessions all start at 0
    by = ["start", "end"] if clock else []
    if "line" in table and (by_line or not clock):
        by = ["line"]
    by = ["session", "speaker", *by, "segment_id"]
    return table.reset_index(drop=True).sort_values(by, kind="stable")


def _order(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row its 0-based rank (n,) in its speaker's session, and their number (n,)."""
    ordered = _ordered(table)
    groups = ordered.groupby(["session", "speaker"], sort=False)["start"]
    rank, size = groups.cumcount().sort_index(), groups.transform("size").sort_index()
    return rank.to_numpy(dtype=int), size.to_numpy(dtype=int)


def _order_after(table: pd.DataFrame, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `_order` among the segments that are not `first` (negative ranks for those)."""
    rank, size = _order(table)
    speaker = group_codes(table, ("session", "speaker"))
    taken = np.bincount(speaker, weights=first).astype(int)[speaker]
    return rank - taken, size - taken


def _share_to_count(size: np.ndarray, share: float) -> np.ndarray:
    """Return `share` of each size, rounded half up, from 1 to all but 1 if possible."""
    if share == 0:
        return np.zeros_like(size)
    part = np.floor(size * share + 0.5).astype(int)
    return np.clip(part, np.minimum(1, size // 2), np.maximum(size - 1, 0))


def _check_known(speakers: pd.Series, strange: pd.Series, session: str, unknown: str) -> None:
    if unknown == "refuse" and len(strange):
        raise InputError(
            f"session {session}: "
            f"{counted(strange.nunique(), 'speaker', 'is', of=speakers.nunique())} in no other "
            f"session, first {strange.iloc[0]!r}, expected all; make the table with --scope "
            "series or corpus or with --identity, or pass --unknown purge"
        )


def _share(name: str, value: float, *, positive: bool = False) -> None:
    """Raise `InputError` unless 0 <= `value` < 1 (0 < `value` < 1 if it must be positive)."""
    if not 0 <= value < 1 or (positive and value == 0):
        least = "> 0" if positive else ">= 0"
        raise InputError(f"{name}: is {value:g}, expected {least} and < 1; correct it")
