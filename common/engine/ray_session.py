"""Join or start Ray: which clusters are allowed, how many units fit, what each machine answers.

Without an address, a Ray of this machine alone is started, bound to the loopback address and
without a dashboard; it ends with the context or with this process. With an address, that cluster is
joined and left as it was. Anyone who reaches a cluster without authentication can run programs on
it, so a cluster beyond this machine's loopback address is refused unless its token is in use.

``ray stop`` is never called: it kills processes by name, including other people's.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from ..cpus import available_cores
from ..errors import InputError
from ..extras import check_extra
from ..log import debug
from ..signals import defer_signals, exit_when_stuck, keep_handlers
from .work import Resources

AUTH, TOKEN = "RAY_AUTH_MODE", "token"
# Ray replaces 127.0.0.1 by the machine's own address, and then listens on all interfaces, unless
# this setting disables clusters. Despite its name it works on all systems.
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
# We handle signals: Ray would print a stack for SIGTERM, and restore the default action at its end.
HANDLER = "RAY_DISABLE_FAILURE_SIGNAL_HANDLER"
# How often Ray retries an address that accepts connections; each try takes 40 s.
TRIES = "RAY_gcs_server_port_wait_time_s"
# Usage reports are off; a unit that outgrows the memory is retried as often as one that dies. A
# machine that is cut off closes no connection: by default Ray checks only after five minutes, then
# waits for two. Its servers accept one ping a minute, no more.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    HANDLER: "1",
    "RAY_task_oom_retries": "3",
    "RAY_grpc_client_keepalive_time_ms": "75000",  # from one answer to the next ping
    "RAY_grpc_client_keepalive_timeout_ms": "20000",
}
OBJECTS = 100_000_000  # bytes of shared memory: only names and counts are exchanged
PATIENCE = 60.0  # s for a machine to answer
STUCK = 15.0  # s that Ray may wait, after a signal, for processes that the signal may have ended
KNOCK = 10.0  # s for the head to accept a connection; Ray itself would try for minutes


def check_address(address: str | None) -> None:
    """Raise `InputError` unless the cluster at `address`, HOST:PORT, may be joined.

    Examples
    --------
    >>> check_address("127.0.0.1:6379")
    """
    if address is None:
        return
    host, colon, port = address.rpartition(":")
    if not (colon and host and _is_port(port)) or "/" in host:
        raise InputError(
            f"--ray-address: value is {address!r}, expected HOST:PORT of the cluster's head, such "
            "as 10.0.0.1:6379; correct it"
        )
    if not _is_loopback(host) and not _has_token():
        raise _unprotected(f"--ray-address: {address!r} is another machine's or a network's")


@contextmanager
def ray_session(address: str | None) -> Iterator[Any]:
    """Yield the module `ray`, joined to a cluster or to a Ray of its own, within the context.

    Raises
    ------
    InputError
        Ray is not installed, the cluster may not be joined (`check_address`) or does not answer.
    """
    check_extra("ray", "--engine ray")
    check_address(address)
    # for logs, and for sockets, whose paths have to be short
    logs = TemporaryDirectory(prefix="spk-ray-", dir="/tmp", ignore_cleanup_errors=True)
    with (
        _settings(address) as ray,
        _silenced(ray),
        logs as folder,
        exit_when_stuck(STUCK, logs.cleanup),
    ):
        try:
            with defer_signals(), keep_handlers():  # ray.init takes SIGTERM for itself
                _connect(ray, address, folder)
            _check_machines(ray)
            yield ray
        finally:
            with defer_signals():
                ray.shutdown()


def count_slots(ray: Any, resources: Resources) -> int:
    """Return how many units fit on the machines that are there now."""
    return sum(_fit(node["Resources"], resources) for node in ray.nodes() if node["Alive"])


def unit_resources(ray: Any, *, gpus: float, cores: int, option: str) -> Resources:
    """Return what a unit occupies: a GPU or part of one, with some cores; without a GPU, one core.

    Parameters
    ----------
    gpus
        From 0 to 1.
    cores
        Cores wanted beside the GPU; fewer if its share of the machine's cores is smaller.
    option
        The option that chooses the device, for the message.

    Raises
    ------
    InputError
        No machine has room for a unit.
    """
    resources = Resources()
    if gpus:
        shares = [int(cpus * gpus // there) for cpus, there in gpu_machines(ray)]
        resources = Resources(max(1, min((cores, *shares))), gpus)
    if not count_slots(ray, resources):
        raise InputError(
            f"{option}: the machines of Ray have no {'GPU' if gpus else 'CPU'} for a unit, "
            f"expected one; add a machine, or pass another {option}"
        )
    return resources


def gpu_machines(ray: Any) -> list[tuple[float, float]]:
    """Return the CPUs and GPUs of each machine that has a GPU."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [(node.get("CPU", 0.0), node["GPU"]) for node in nodes if node.get("GPU", 0) >= 1]


def ask_machines(ray: Any, function: Callable[..., str], *arguments: Any) -> dict[str, str]:
    """Call a function on each machine; return the answers that are not "", by machine address.

    A machine that fails to answer is listed with the reason.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = ray.remote(num_cpus=0, max_retries=0)(function)
    asked_of: dict[Any, str] = {}
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            answer = remote.options(scheduling_strategy=there).remote(*arguments)
            asked_of[answer] = node["NodeManagerAddress"]
    said: dict[str, str] = {}
    for answer, machine in asked_of.items():
        try:
            said[machine] = ray.get(answer, timeout=PATIENCE) or said.get(machine, "")
        except ray.exceptions.GetTimeoutError:
            said[machine] = f"it does not answer within {PATIENCE:.0f} s"
        except ray.exceptions.RayError as problem:
            said[machine] = one_line(problem)
    return {machine: text for machine, text in said.items() if text}


def one_line(problem: BaseException) -> str:
    """Return the last line of an error from Ray, which names the problem."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return lines[-1] if lines else type(problem).__name__


@contextmanager
def _settings(address: str | None) -> Iterator[Any]:
    """Yield the module `ray`, not yet started, with our settings; restore them at the end.

    Any other use of Ray in the process, before or afterwards, has its own settings.
    """
    settings = dict(SETTINGS)
    if address is None or _is_loopback(address.rpartition(":")[0]):
        settings[LOOPBACK] = "0"
    if address is not None:
        settings[TRIES] = "1"
    with ExitStack() as later, _added_to_environment(settings):
        import ray

        if ray.is_initialized():
            raise InputError(
                "--engine: Ray is in use in this process already, expected that spk starts or "
                "joins it; call ray.shutdown() first, and name the cluster with --ray-address"
            )
        later.callback(_read_again, ray)
        _read_again(ray)  # it may have been imported before
        yield ray


@contextmanager
def _added_to_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set the environment variables that are not set, within the context."""
    added = variables.keys() - os.environ.keys()
    os.environ.update({name: variables[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _read_again(ray: Any) -> None:
    """Make Ray read again the variables that it otherwise reads only when imported."""
    constants = ray._private.ray_constants
    constants.ENABLE_RAY_CLUSTER = constants.env_bool(LOOPBACK, not constants.IS_WINDOWS_OR_OSX)
    setattr(constants, HANDLER, constants.env_bool(HANDLER, False))


def _connect(ray: Any, address: str | None, folder: str) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is None:
        options |= {
            "_node_ip_address": "127.0.0.1",
            "_temp_dir": folder,
            "include_dashboard": False,
            "num_cpus": available_cores(),
            "object_store_memory": OBJECTS,
        }
    try:
        if address:
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), KNOCK).close()
        ray.init(address=address or "local", **options)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as problem:
        raise _not_joined(address, problem, ray.__version__) from problem


def _not_joined(address: str | None, problem: Exception, version: str) -> InputError:
    """Return the error for a Ray that does not start or cannot be joined."""
    text = str(problem)
    why = " ".join(text.split()) if text.startswith("Version mismatch") else one_line(problem)
    if address is None:
        return InputError(
            f"--engine ray: Ray does not start on this machine ({why}), expected it to; free "
            "memory and room in /tmp, or leave --engine out"
        )
    return InputError(
        f"--ray-address: {address!r} cannot be joined ({why}), expected a running Ray of version "
        f"{version}, of which this machine is a part; start it with `ray start`, here too, or "
        "leave --ray-address out to use this machine alone"
    )


@contextmanager
def _silenced(ray: Any) -> Iterator[None]:
    """Send what Ray says of dead machines and tasks to the debug log within the context.

    By default it prints that, with long stacks of its own, to standard output.
    """
    worker = ray._private.worker
    before = worker.print_to_stdstream
    worker.print_to_stdstream = lambda data, **_: debug("\n".join(data["lines"]))
    try:
        yield
    finally:
        worker.print_to_stdstream = before


def _check_machines(ray: Any) -> None:
    """Refuse a cluster that listens on a network without a token, under whatever name."""
    machines = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if not all(map(_is_loopback, machines)) and not _has_token():
        raise _unprotected(f"--ray-address: the cluster listens on {min(machines)}")


def _unprotected(what: str) -> InputError:
    return InputError(
        f"{what}, expected {AUTH}={TOKEN}, without which whoever reaches a cluster runs programs "
        "there; run `ray get-auth-token --generate`, bring ~/.ray/auth_token to every machine, and "
        f"start Ray and this command with {AUTH}={TOKEN} (docs/how-to/cluster.md)"
    )


def _has_token() -> bool:
    return os.environ.get(AUTH, "").lower() == TOKEN


def _is_port(text: str) -> bool:
    return text.isdecimal() and len(text) < 6 and 0 < int(text) < 1 << 16


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _fit(node: dict[str, float], resources: Resources) -> int:
    wanted = {"CPU": resources.cpus, "GPU": resources.gpus}
    fitting = (int(node.get(name, 0.0) / each) for name, each in wanted.items() if each)
    return min(fitting, default=1)
