"""Train on several machines, as Ray tasks: one session per task, with a GPU or one core each.

A task does what a training process does on one machine: it holds the lock of the session's folder,
resumes training there from the last saved epoch, and writes ``result.json`` last, which publishes
the session. So if a task's process dies, the task runs again elsewhere and resumes; and a session
that another process is training is left to it. A single model for the whole corpus on several
devices is a task too: it holds the lock, and Ray Train starts a process per device.

A session never has two tasks at a time: the second would only wait for the lock of the first.
"""

from __future__ import annotations

import os
import pickle
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...common.engine.folders import check_machines, work_in, working_folder
from ...common.engine.options import HERE
from ...common.engine.ray_engine import run_units
from ...common.engine.ray_session import count_slots, gpu_machines, unit_resources
from ...common.engine.work import RETRIES, Done, FailedUnit, Job, Resources, Unit, unit_key
from ...common.errors import InputError
from ...common.log import log as tell
from ...common.log import progress_bar
from ...extract.pipeline.many_machines import environment_of_tasks
from .provenance import fingerprint, identity, load_encoder, read_origin
from .session_result import RAY_TRAIN, SessionResult, read_result
from .sessions import TrainingPlan, remove_leftovers, train_sessions, write_tables

if TYPE_CHECKING:
    from ...manifests.splits.tasks import Task
    from .train_session import TrainingContext

Log = Callable[[str], None]
PACKAGES = ("spk-toolkit", "lightning", "transformers")  # the same version on all machines
WAIT = 10.0  # s to wait for a lock, which a killed process may still hold
COORDINATOR = Resources(cpus=0)  # of the task that starts a single model's processes, and waits


@dataclass(frozen=True)
class TrainingSpec:
    """What every task needs: the pickled plan, and how a session is trained."""

    plan: bytes
    folder: str  # base of relative paths
    environment: dict[str, str]
    on_gpu: bool
    threads: int
    ranks: int  # processes of a single model


@dataclass(frozen=True)
class Trained:
    """What a task returns: lines for the user, and whether another process has the session."""

    lines: tuple[str, ...] = ()
    busy: bool = False


def train_on_ray(
    plan: TrainingPlan, stop: Callable[[], bool], log: Log
) -> tuple[list[str], bool, list[FailedUnit]]:
    """Train a plan's unfinished sessions on the machines of Ray.

    Returns
    -------
    tuple
        The sessions that another process is training, whether `stop` ended it, what was given up.
    """
    remove_leftovers(plan)
    units = [_unit(plan, version) for version in plan.tasks if not plan.finished(version)]
    if not units or stop():
        return [], bool(units), []
    busy: list[str] = []
    with progress_bar(len(units), unit=" sessions") as bar:

        def publish(unit: Unit, done: Done) -> None:
            trained: Trained = done.get()
            for line in trained.lines:
                log(line)
            busy.extend([unit.name] * trained.busy)
            write_tables(plan)
            bar.update()

        describe = partial(_job, plan, units, publish, log)
        stopped, failed = run_units(plan.config.ray_address, describe, stop, tell)
    return busy, stopped, failed


def _unit(plan: TrainingPlan, version: int) -> Unit:
    task, origin = plan.tasks[version], read_origin(plan.folder(version))
    begun = fingerprint(origin) if origin else ""
    return Unit(unit_key(task.name, version, begun), task.name, version)


def _job(
    plan: TrainingPlan,
    units: Sequence[Unit],
    publish: Callable[[Unit, Done], None],
    log: Log,
    ray: Any,
) -> Job:
    """Check the machines, and return their job."""
    config = plan.config
    check_machines(ray, Path(os.path.abspath(config.log_dir)), _inputs(plan), packages=PACKAGES)
    on_gpu = config.accelerator != "cpu" and bool(gpu_machines(ray))
    if config.accelerator == "gpu" and not on_gpu:
        log("--accelerator: 'gpu' is requested but there is none; training on the CPU")
    gpus = on_gpu / config.workers_per_device
    each = unit_resources(ray, gpus=gpus, cores=1 + config.workers, option="--accelerator")
    ranks = config.devices if config.within == "corpus" else 1
    if count_slots(ray, each) < ranks:
        raise InputError(
            f"--devices: value is {ranks}, expected at most {count_slots(ray, each)}, the "
            f"{'GPUs' if on_gpu else 'cores'} of the machines of Ray; correct it"
        )
    there = replace(plan, config=replace(config, **HERE))  # models record this
    cores, environment = int(each.cpus), environment_of_tasks()
    spec = TrainingSpec(pickle.dumps(there), os.getcwd(), environment, on_gpu, cores, ranks)
    resources = each if ranks == 1 else COORDINATOR
    never = float("inf")
    return Job(train_unit, spec, units, publish, resources=resources, overdue=never, calls=1)


def _inputs(plan: TrainingPlan) -> list[tuple[str, str]]:
    """Return the files that other machines must see with the same content."""
    config, rows = plan.config, plan.table.iloc[_rows(plan)]
    names = sorted({*rows["audio"].map(str)})
    paths = [os.path.abspath(Path(config.audio_root, name)) for name in (names[0], names[-1])]
    encoder = os.path.abspath(config.encoder)
    return [
        *((f"the audio {path}", path) for path in dict.fromkeys(paths)),
        *working_folder(os.getcwd()),
        (f"the encoder {encoder}", os.path.join(encoder, "config.json")),
    ]


def _rows(plan: TrainingPlan) -> list[int]:
    return [row for task in plan.tasks.values() for rows in task.rows.values() for row in rows]


def train_unit(spec: TrainingSpec, version: int) -> Done:
    """Train a session in a Ray process, and publish it."""
    return Done.by(_train, spec, version)


def _train(spec: TrainingSpec, version: int) -> Trained:
    plan = _load_plan(spec)
    _check_encoder(plan)
    plan = replace(plan, tasks={version: plan.tasks[version]})
    lines: list[str] = []
    if spec.ranks == 1:
        from .train_session import train

        train_one = partial(train, run=_context(spec, plan))
    else:
        train_one = partial(_train_together, spec=spec, version=version)
    limit = time.monotonic() + WAIT
    while (busy := train_sessions(plan, train_one, lines.append)) and time.monotonic() < limit:
        time.sleep(WAIT / 20)
    return Trained(tuple(lines), bool(busy))


def _load_plan(spec: TrainingSpec) -> TrainingPlan:
    """Set up a Ray process like the driver, and return the plan."""
    import torch

    os.environ.update(spec.environment)
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        del os.environ[name]  # Lightning would read them as a layout of its processes
    work_in(spec.folder)
    torch.set_num_threads(spec.threads)
    plan: TrainingPlan = pickle.loads(spec.plan)  # noqa: S301 (of this run's own driver)
    return plan


def _check_encoder(plan: TrainingPlan) -> None:
    """Refuse an encoder that has the same name on this machine but other content."""
    encoder = identity(load_encoder(plan.config).provenance)
    differ = [name for name, value in plan.encoder.items() if encoder.get(name) != value]
    if differ:
        raise InputError(
            f"--encoder: {plan.config.encoder!r} has another {differ[0]} on a machine of Ray, "
            "expected the same; bring one encoder to all of them, or name a folder that they share"
        )


def _context(spec: TrainingSpec, plan: TrainingPlan, device: str = "") -> TrainingContext:
    from .train_session import TrainingContext

    device = device or ("cuda:0" if spec.on_gpu else "cpu")
    on_ray = spec.ranks > 1
    return TrainingContext(
        plan.table, plan.config, plan.split, device=device, ranks=spec.ranks, on_ray=on_ray
    )


def _train_together(task: Task, folder: Path, *, spec: TrainingSpec, version: int) -> SessionResult:
    """Train a single model with a process per device; if one dies, all resume from the last epoch.

    Their output is discarded; the files of the first process say how the training ended.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    _free_devices()
    place = Path(os.path.abspath(folder), RAY_TRAIN)
    shutil.rmtree(place, ignore_errors=True)  # left by a killed run
    trainer = TorchTrainer(
        train_rank,
        train_loop_config={"spec": spec, "version": version},
        scaling_config=ScalingConfig(
            num_workers=spec.ranks,
            use_gpu=spec.on_gpu,
            resources_per_worker={"CPU": spec.threads, **({"GPU": 1} if spec.on_gpu else {})},
        ),
        run_config=RunConfig(
            name="run",
            storage_path=str(place),
            failure_config=FailureConfig(max_failures=RETRIES, controller_failure_limit=RETRIES),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as problem:
        raise _cause(problem) from problem
    finally:
        shutil.rmtree(place, ignore_errors=True)
    result = read_result(folder)
    if result is None:
        raise RuntimeError(f"{task.name}: Ray Train ended, and there is no result")
    return result


def _free_devices() -> None:
    """Free the devices reserved by an earlier try that was killed.

    Ray Train does so only on a cluster with a dashboard. This job reserves no other devices.
    """
    import ray
    from ray.util import placement_group_table, remove_placement_group
    from ray.util.placement_group import PlacementGroup

    job = ray.get_runtime_context().get_job_id()
    for name, group in placement_group_table().items():
        if name.endswith(job) and group["state"] != "REMOVED":  # names end in the job's last digits
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(name))))


def train_rank(shared: dict[str, Any]) -> None:
    """Train a model in one of the processes that Ray Train has started for it."""
    from ray.train.torch import get_device

    from .train_session import train

    spec, version = shared["spec"], shared["version"]
    plan = _load_plan(spec)
    train(plan.tasks[version], plan.folder(version), _context(spec, plan, str(get_device())))


def _cause(problem: Exception) -> Exception:
    """Return the user-repairable cause of the processes' end, or else the whole exception."""
    failures = getattr(problem, "worker_failures", {})
    for failure in failures.values():
        for error in (failure, getattr(failure, "_base_exc", None), failure.__cause__):
            if isinstance(error, InputError):
                return error
    return problem
