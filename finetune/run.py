"""``spk-finetune fit``: train all sessions of a table on the available devices.

One process works through the sessions; with more devices or workers, several do, each taking the
next session whose folder is not locked. A single model for the whole corpus is trained by all
devices together instead.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.counts import counted
from ..common.cpus import available_cores
from ..common.engine.options import check_may_join
from ..common.engine.work import FailedUnit
from ..common.errors import InputError
from ..common.extras import check_extra
from ..common.log import is_quiet, log, logging_to_stderr, warn
from ..common.signals import ignore_sigint, stop_after_batch
from ..extract.audio import channels_unread, segments_of
from ..manifests.split_record import split_method
from ..manifests.table import as_table, read_predictions
from .config import FinetuneConfig, read_config
from .training.check_run import write_or_check_config
from .training.many_machines import train_on_ray
from .training.sessions import (
    TrainingPlan,
    count_left_out,
    plan_training,
    summary,
    train_sessions,
    unfinished_tasks,
    write_tables,
)

if TYPE_CHECKING:
    import pandas as pd


Log = Callable[[str], None]
PATIENCE = 0.5  # s between checks on the workers


@dataclass(frozen=True, eq=False)
class FinetuneSummary:
    """A run's result: `sessions` is the table of that name, `text` the last line to print.

    Both are empty in a process that only helped another one with its model.
    """

    sessions: pd.DataFrame | None = field(repr=False)
    text: str
    busy: tuple[str, ...] = ()  # sessions that another process is working on
    interrupted: bool = False
    left_out: int = 0  # segments that could not be used, sessions that could not be trained
    failed: tuple[str, ...] = ()  # sessions that were given up on the machines of Ray
    log_dir: str = ""  # folder of the run

    @property
    def predictions(self) -> pd.DataFrame:
        """The predictions table that the trained sessions wrote.

        Raises
        ------
        InputError
            No session has any.
        """
        return read_predictions(Path(self.log_dir, "predictions.csv"))


def finetune(
    table: pd.DataFrame | str | Path,
    config: FinetuneConfig | str | Path | None = None,
    *,
    preset: str | None = None,
    log: Log = log,
    **settings: Any,
) -> FinetuneSummary:
    """Tune an encoder on the speakers of each session of a table, or resume a run.

    Parameters
    ----------
    table
        Segment table with a split, or its file.
    config
        Settings, or a YAML file of them.
    preset
        "transfer" or "baseline", instead of `config`.
    log
        Receives a line per session, and reasons to doubt the result.
    settings
        Fields of `FinetuneConfig` by name, which override those of `config` or `preset`, such as
        ``audio_root="wav"``, ``log_dir="tuned"``, ``encoder="demo"``.

    Returns
    -------
    FinetuneSummary
        Its `sessions` and `predictions` are tables.

    Raises
    ------
    InputError
        As for `train_table`; or both `config` and `preset` are given.

    Examples
    --------
    >>> tuned = finetune("table.csv", preset="transfer", audio_root="wav")  # doctest: +SKIP
    >>> tuned.predictions.head()  # doctest: +SKIP

    With several devices or workers, each has a process that imports your script again: call this
    under ``if __name__ == "__main__":``.
    """
    if config is not None and preset is not None:
        raise InputError(
            f"preset: {preset!r} is given beside a config, expected one of the two; leave one out"
        )
    if isinstance(config, FinetuneConfig):
        chosen = replace(config, **settings)
    else:
        chosen = read_config(preset or config, settings)
    rows = as_table(table)
    split = split_method(rows)
    if "leaky" in split:
        warn(f"split: {split}: test segments have neighbours in train; scores on it flatter")
    summary = train_table(rows, chosen, split=split, log=log, warn=log)
    log(summary.text)
    return summary


def train_table(
    table: pd.DataFrame,
    config: FinetuneConfig,
    *,
    split: str = "unknown",
    stop: Callable[[], bool] = lambda: False,
    log: Log = lambda line: None,
    warn: Log = lambda line: None,
    lock: bool = True,
) -> FinetuneSummary:
    """Train a table's sessions, or resume a run with the same folder.

    Parameters
    ----------
    table
        Segment table with a split.
    split
        How it was split (`manifests.splits.tasks.split_method`); predictions are marked if it is
        leaky.
    stop
        Called between batches; true ends the run, and the last epochs are kept.
    log
        Called with a line per session.
    warn
        Called with a line for each assumption about the encoder, and for anything that could not be
        compared.
    lock
        Hold the lock of a session's folder while it is trained; without it, no other process may
        work there.

    Raises
    ------
    InputError
        The table, the encoder, a setting or a device is unsuitable.
    """
    check_extra("finetune", "spk-finetune")
    check_may_join(config.engine, config.ray_address)
    plan = replace(plan_training(table, config, split), lock=lock)
    devices = choose_devices(config, log) if config.engine == "local" else []
    plan = write_or_check_config(plan, warn)
    segments = segments_of(table, config.audio_root)
    if not config.channel_prob and (unread := channels_unread(segments, config.channel)):
        warn(unread)
    _check_shared_model(config, config.devices if config.within == "corpus" else 1)
    failed: list[FailedUnit] = []
    with _none_left_running(plan):
        if config.engine == "ray":
            _check_resume_used(plan)
            busy, interrupted, failed = train_on_ray(plan, stop, log)
        else:
            busy, interrupted = _train_here(plan, devices, stop, log)
    if config.within == "corpus" and len(devices) > 1 and not _first_rank():
        return FinetuneSummary(sessions=None, text="", interrupted=interrupted)
    given_up = tuple(unit.unit.name for unit in failed)
    sessions = write_tables(plan)
    _check_still_there(plan, [*busy, *given_up], interrupted)
    return FinetuneSummary(
        sessions,
        summary(plan, sessions),
        busy=tuple(busy),
        interrupted=interrupted,
        left_out=count_left_out(plan, sessions),
        failed=given_up,
        log_dir=str(config.log_dir),
    )


@contextmanager
def _none_left_running(plan: TrainingPlan) -> Iterator[None]:
    """If a problem ends the run, rewrite sessions.csv so that no session is shown as running."""
    try:
        yield
    except BaseException:
        with suppress(Exception):  # the first problem is the one that is raised
            write_tables(plan)
        raise


def _train_here(
    plan: TrainingPlan, devices: Sequence[str], stop: Callable[[], bool], log: Log
) -> tuple[list[str], bool]:
    """Train on this machine; return the busy sessions, and whether `stop` ended it."""
    together = plan.config.within == "corpus"
    workers = devices[:1] if together else [*devices] * plan.config.workers_per_device
    if len(workers) > 1:
        return _side_by_side(plan, workers, stop)
    ranks = len(devices) if together else 1
    return _train_all(plan, workers[0], stop, log, ranks=ranks)


def _check_still_there(plan: TrainingPlan, busy: Sequence[str], interrupted: bool) -> None:
    """Raise `InputError` if a finished session is no longer on disk."""
    gone = [] if interrupted else [t.name for t in unfinished_tasks(plan) if t.name not in busy]
    if gone:
        raise InputError(
            f"{plan.config.log_dir}: {counted(len(gone), 'finished session', 'has')} disappeared, "
            f"first {gone[0]!r}, expected all; leave the folder alone, and run the same command "
            "again"
        )


def _check_shared_model(config: FinetuneConfig, ranks: int) -> None:
    """Refuse settings that processes sharing a model would not apply alike."""
    if ranks > 1 and config.unfreeze:
        raise InputError(
            f"--unfreeze: value is {config.unfreeze!r} with {counted(ranks, 'device')} on one "
            "model, expected nothing, since layers that open later would not be kept equal; leave "
            "out one of the two"
        )


def choose_devices(config: FinetuneConfig, log: Log) -> list[str]:
    """Return the devices to train on, as torch names them.

    ``gpu`` falls back to the CPU if there is none, as in the thesis project, and logs that.

    Raises
    ------
    InputError
        More GPUs are requested than available.
    """
    import torch

    count = torch.cuda.device_count() if config.accelerator != "cpu" else 0
    if config.accelerator == "gpu" and not count:
        log("--accelerator: 'gpu' is requested but there is none; training on the CPU")
    if not count:
        return ["cpu"] * config.devices
    if config.devices > count:
        raise InputError(
            f"--devices: value is {config.devices}, expected at most {count}, the number of GPUs; "
            "correct it"
        )
    return [f"cuda:{number}" for number in range(config.devices)]


def _train_all(
    plan: TrainingPlan, device: str, stop: Callable[[], bool], log: Log, *, ranks: int = 1
) -> tuple[list[str], bool]:
    """Train unfinished sessions on one device; return busy ones, and whether `stop` ended it."""
    from .training.callbacks import Interrupted
    from .training.train_session import TrainingContext, train

    _check_resume_used(plan)
    run = TrainingContext(
        plan.table, plan.config, plan.split, device=device, ranks=ranks, stop=stop
    )
    try:
        busy = train_sessions(plan, partial(train, run=run), log, alone=ranks == 1 or _first_rank())
    except Interrupted:
        return [], True
    return busy, stop()


def _check_resume_used(plan: TrainingPlan) -> None:
    """Refuse a checkpoint to resume from that is of none of the sessions."""
    checkpoint = plan.config.resume_from_checkpoint
    if not isinstance(checkpoint, str):
        return
    from .model.checkpoint import read_checkpoint

    session = read_checkpoint(checkpoint)["spk"]["task"]
    if session not in [task.name for task in plan.tasks.values()]:
        raise InputError(
            f"--resume-from-checkpoint: {checkpoint} is of {session!r}, expected one of the "
            "sessions to be trained; leave it out, or ask for that session"
        )


def _first_rank() -> bool:
    """Return whether this is the first of the processes that share a model."""
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    return not getattr(rank_zero_only, "rank", 0)


def _side_by_side(
    plan: TrainingPlan, devices: Sequence[str], stop: Callable[[], bool]
) -> tuple[list[str], bool]:
    """Run one process per entry of `devices`; they share the sessions through their locks."""
    import torch

    context = multiprocessing.get_context("spawn")
    threads = max(1, min(torch.get_num_threads(), available_cores() // len(devices)))
    given = threads, is_quiet()
    workers = [context.Process(target=_worker, args=(plan, device, *given)) for device in devices]
    for worker in workers:
        worker.start()
    stopping = False
    while any(worker.is_alive() for worker in workers):
        for worker in workers:
            worker.join(PATIENCE)
        if stop() and not stopping:
            stopping = True
            for worker in workers:
                worker.terminate()  # SIGTERM: each ends after its batch
    if stopping:
        return [], True
    _check_exit_codes([worker.exitcode or 0 for worker in workers])
    return [task.name for task in unfinished_tasks(plan)], False


def _worker(plan: TrainingPlan, device: str, threads: int, quiet: bool) -> None:
    """Entry point of a worker process."""
    import torch

    torch.set_num_threads(threads)
    log = partial(print, file=sys.stderr, flush=True)
    parent = os.getppid()  # a killed parent cannot end its workers, so they check for it
    with logging_to_stderr(quiet=quiet), stop_after_batch(lambda line: None) as caught:
        ignore_sigint()  # the parent sends SIGTERM
        try:
            _, interrupted = _train_all(
                plan, device, lambda: bool(caught) or os.getppid() != parent, print
            )
        except InputError as problem:
            log(str(problem))
            sys.exit(1)
    sys.exit(128 + (caught or [signal.SIGTERM])[0] if interrupted else 0)


def _check_exit_codes(codes: Sequence[int]) -> None:
    failed = [code for code in codes if code]
    if failed:
        raise InputError(
            f"workers: {len(failed)} of {len(codes)} ended early, first with code {failed[0]}, "
            "expected 0; see above, and run the same command to resume"
        )
