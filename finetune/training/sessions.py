"""Train many sessions, in sequence or in parallel, interruptible and resumable at any moment.

The folder ``log_dir`` has ``config.yaml`` (the resolved settings) and one folder ``version_X`` per
session, X being the session's index among the table's, so that several processes and machines agree
on it. The process that trains a session holds its folder's lock. After each session the summary
tables are rewritten: ``sessions.csv``, ``predictions.csv`` and, if segments were unusable,
``rejected.csv``.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ...common.counts import counted
from ...common.errors import InputError, explain_write_errors
from ...common.files import atomic_write
from ...common.locks import FolderBusyError, FolderLock, lock_holder
from ...extract.pipeline.batching import take_part
from ...manifests.splits.tasks import Task, make_tasks, rows_sha256
from ...manifests.table import read_predictions, write_predictions
from ..config import FinetuneConfig, anew
from .provenance import ANOTHER, describe, read_origin, write_origin
from .session_result import (
    PREFIX,
    RAY_TRAIN,
    SessionResult,
    checkpoint_folder,
    doubts,
    keeps_last,
    read_result,
    result_line,
    wants_more,
)

if TYPE_CHECKING:
    import pandas as pd


SESSION_COLUMNS = (
    *("session", "version", "state", "reason", "speakers", "epochs", "best_epoch", "seconds"),
    *("valid_segments", "valid_accuracy", "test_segments", "test_accuracy", "checkpoint"),
    *("test_unknown", "test_learnt"),
)


@dataclass(frozen=True, eq=False)
class TrainingPlan:
    """What to train.

    Attributes
    ----------
    tasks : {version: Task}
        The requested tasks.
    names : tuple of str
        Names of all of the table's sessions, in the order of their versions.
    left_out : {session: reason}
        Sessions that cannot be trained, or are not requested.
    doable : {session: Task}
        All tasks that can be trained, requested or not.
    encoder : {name: value}
        What identifies the encoder; empty if it is unavailable and nothing remains to be trained.
    lock : bool
        Whether a session's folder is locked while it is trained.
    """

    table: pd.DataFrame
    config: FinetuneConfig
    split: str
    tasks: dict[int, Task]
    names: tuple[str, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    doable: dict[str, Task] = field(default_factory=dict)
    encoder: dict[str, str] = field(default_factory=dict)
    lock: bool = True

    def finished(self, version: int) -> SessionResult | None:
        """Return a session's result; None if it is unfinished or more epochs are requested."""
        folder = self.folder(version)
        result = read_result(folder)
        return None if result and wants_more(result, read_origin(folder), self.config) else result

    def folder(self, version: int) -> Path:
        """Return a session's folder."""
        return Path(self.config.log_dir) / f"version_{version}"


def plan_training(
    table: pd.DataFrame, config: FinetuneConfig, split: str = "unknown"
) -> TrainingPlan:
    """Return which sessions to train, and why others are left out.

    Raises
    ------
    InputError
        No task is feasible, or `sessions` or `start_meeting` is not in the table.
    """
    tasks, left_out = make_tasks(table, config.within)
    names = tuple(sorted({*left_out, *(task.name for task in tasks)}))
    _check_session_names(config, names)
    doable = {task.name: task for task in tasks}
    wanted = dict(doable)
    for name in list(wanted):
        reason = _not_asked(name, config)
        if reason:
            left_out[name] = reason
            del wanted[name]
    ours = take_part(sorted(wanted), config.shard)
    left_out |= {name: f"not in shard {config.shard}" for name in wanted if name not in ours}
    chosen = {names.index(name): wanted[name] for name in ours}
    return TrainingPlan(table, config, split, chosen, names, left_out, doable)


def _check_session_names(config: FinetuneConfig, names: Sequence[str]) -> None:
    requested = [*config.sessions, *([config.start_meeting] if config.start_meeting else [])]
    for name in requested:
        if name not in names:
            option = "--start-meeting" if name == config.start_meeting else "--sessions"
            raise InputError(
                f"{option}: {name!r} is not in the table, expected one of its "
                f"{counted(len(names), 'session')} such as {names[0]!r}; correct it"
            )


def _not_asked(name: str, config: FinetuneConfig) -> str:
    if config.sessions and name not in config.sessions:
        return "not among --sessions"
    if name < config.start_meeting:
        return f"before --start-meeting {config.start_meeting}"
    return ""


def train_sessions(
    plan: TrainingPlan,
    train: Callable[[Task, Path], SessionResult],
    log: Callable[[str], None],
    *,
    alone: bool = True,
) -> list[str]:
    """Train all unfinished sessions; return those that another process is working on.

    `alone` is false in a process that only helps another one with its model.
    """
    busy = []
    for version, task in plan.tasks.items():
        folder = plan.folder(version)
        result = plan.finished(version)
        if result:
            _remove_leftovers(folder, result, plan)
            continue
        if not alone:
            train(task, folder)
            continue
        with _lock_folder(folder, plan) as locked:
            if not locked:
                busy.append(task.name)
            elif not plan.finished(version):  # another process may just have finished it
                (folder / "result.json").unlink(missing_ok=True)  # more epochs will follow
                _write_task_file(folder, task, plan)
                _remove(_half_written(folder, plan.config))
                _write_sessions(plan)  # so that other terminals see who trains it
                result = train(task, folder)
                log(result_line(result, folder, plan.config.max_epochs))
                write_tables(plan)
    return busy


def remove_leftovers(plan: TrainingPlan) -> None:
    """Remove what kills after the end of sessions left behind."""
    for version in plan.tasks:
        if result := plan.finished(version):
            _remove_leftovers(plan.folder(version), result, plan)


def _remove_leftovers(folder: Path, result: SessionResult, plan: TrainingPlan) -> None:
    """Remove what a kill after a session's end left behind."""
    config = plan.config
    leftovers = _half_written(folder, config)
    if not keeps_last(result, config):
        leftovers += checkpoint_folder(folder, config).glob("*-last.ckpt")
    leftovers += [folder / name for name in (PREFIX, RAY_TRAIN) if (folder / name).is_dir()]
    if leftovers:
        with _lock_folder(folder, plan) as locked:
            _remove(leftovers if locked else [])


def _half_written(folder: Path, config: FinetuneConfig) -> list[Path]:
    """Return the temporary files of a killed writer."""
    places = (folder, checkpoint_folder(folder, config))
    return [path for place in places for path in place.glob(".*") if path.is_file()]


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def _lock_folder(folder: Path, plan: TrainingPlan) -> Iterator[bool]:
    """Hold a folder's lock within this context; yields false if another process has it."""
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FolderLock(folder / "lock", lock=plan.lock)
    except FolderBusyError:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _write_task_file(folder: Path, task: Task, plan: TrainingPlan) -> None:
    """Write a session's provenance to its folder, refusing a folder of something else."""
    origin = read_origin(folder)
    if origin is None:
        _check_foreign(folder, checkpoint_folder(folder, plan.config))
    elif (origin.session, origin.rows_sha256) != (task.name, rows_sha256(task, plan.table)):
        raise InputError(
            f"{folder}: was begun with other segments of {task.name!r}, expected those of the "
            f"table; {ANOTHER}"
        )
    with explain_write_errors(folder):
        write_origin(
            folder, describe(task, plan.table, plan.config, plan.encoder), task, plan.table
        )


def _check_foreign(folder: Path, checkpoints: Path) -> None:
    """Refuse a folder with files that no session of this run wrote."""
    with explain_write_errors(folder):
        names = [entry.name for entry in folder.iterdir()]
    foreign = [name for name in names if name != "lock" and not name.startswith(".")]
    if foreign:
        raise InputError(
            f"{folder}: holds {foreign[0]!r} of another program, expected nothing or a run "
            "of spk-finetune; name another --log-dir"
        )
    others = sorted(checkpoints.glob("*.ckpt")) if checkpoints.is_dir() else []
    if others:
        raise InputError(
            f"{checkpoints}: holds {others[0].name!r} of another run, expected none; delete "
            f"{checkpoints} or name another --checkpoint-dir"
        )


def write_tables(plan: TrainingPlan) -> pd.DataFrame:
    """Write the summary tables of finished sessions; return the sessions table."""
    import pandas as pd

    root = Path(plan.config.log_dir)
    results, sessions = _write_sessions(plan)
    done = [version for version, result in enumerate(results) if result.state == "done"]
    tables = [_predictions(plan.folder(version)) for version in done]
    rejected = [(r.session, segment, why) for r in results for segment, why in r.rejected.items()]
    if tables:
        # sessions finished by an older version have fewer columns
        together = pd.concat(tables, join="inner", ignore_index=True)
        write_predictions(together, root / "predictions.csv")
    else:
        (root / "predictions.csv").unlink(missing_ok=True)
    if rejected:
        columns = ["session", "segment_id", "reason"]
        atomic_write(root / "rejected.csv", _csv(pd.DataFrame(rejected, columns=columns)))
    else:
        (root / "rejected.csv").unlink(missing_ok=True)
    return sessions


def _write_sessions(plan: TrainingPlan) -> tuple[list[SessionResult], pd.DataFrame]:
    """Write sessions.csv, with unfinished sessions too; return finished results and the table."""
    import pandas as pd

    results = [
        read_result(folder) or _open_result(name, folder, plan)
        for version, name in enumerate(plan.names)
        for folder in [plan.folder(version)]
    ]
    rows = [{"version": version, **asdict(result)} for version, result in enumerate(results)]
    sessions = pd.DataFrame(rows)[list(SESSION_COLUMNS)]
    sessions["best_epoch"] = sessions["best_epoch"].astype("Int64")
    atomic_write(Path(plan.config.log_dir) / "sessions.csv", _csv(sessions))
    return results, sessions


def _predictions(folder: Path) -> pd.DataFrame:
    """Read a finished session's predictions."""
    try:
        return read_predictions(folder / "predictions.csv")
    except InputError as problem:
        reason = str(problem).split("; ")[0]
        raise InputError(f"{reason}, expected what fit wrote; {anew(folder)}") from None


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, lineterminator="\n").encode()


def _open_result(name: str, folder: Path, plan: TrainingPlan) -> SessionResult:
    """Return the result to show for a session that is not finished."""
    if name in plan.left_out:
        not_asked = plan.left_out[name].startswith(("not ", "before "))
        return SessionResult(name, "not asked" if not_asked else "skipped", plan.left_out[name])
    if holder := lock_holder(folder / "lock"):
        by = "by process {pid} on {host}, since {since}".format(**holder)
        return SessionResult(name, "running", by)
    return SessionResult(name, "unfinished" if (folder / "task.json").is_file() else "waiting")


def summary(plan: TrainingPlan, sessions: pd.DataFrame) -> str:
    """Return a run's last line: the number of sessions in each state, and the test accuracy."""
    states = ", ".join(f"{n} {state}" for state, n in Counter(sessions["state"]).items())
    done = sessions[sessions["state"] == "done"]
    text = f"{plan.config.log_dir}: {states}; see sessions.csv there"
    if len(done):
        segments = done["test_segments"].sum()
        pooled = (done["test_accuracy"] * done["test_segments"]).sum() / segments
        text += (
            f" and predictions.csv; test accuracy {pooled:.1%} of {counted(segments, 'segment')}"
        )
        text += f", mean over sessions {done['test_accuracy'].mean():.1%}" * (len(done) > 1)
        text += doubts(segments, done["test_unknown"].sum(), done["test_learnt"].sum())
    return text


def count_left_out(plan: TrainingPlan, sessions: pd.DataFrame) -> int:
    """Count unusable segments and untrainable sessions, among those requested."""
    results = (read_result(plan.folder(version)) for version in range(len(plan.names)))
    rejected = sum(len(result.rejected) for result in results if result)
    return rejected + int(sessions["state"].isin(["skipped", "failed"]).sum())


def unfinished_tasks(plan: TrainingPlan) -> list[Task]:
    """Return the requested tasks that are not finished."""
    return [task for version, task in plan.tasks.items() if not plan.finished(version)]
