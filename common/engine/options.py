"""Which engine runs a job: the two settings that extraction, sweep and fine-tuning share.

They are declared once, so that options, help, errors and the checks before anything is loaded are
the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import InputError
from ..extras import check_extra
from ..options import option_field
from ..signals import AFTER_BATCH
from .ray_session import check_address

ENGINES = ("local", "ray")
ENDING = "stopping, and ending the units under way; once more to stop at once"
HERE: dict[str, Any] = {"engine": "local", "ray_address": None}  # for a run inside a job
Field = Callable[..., Any]  # `option_field`, possibly with a group


def engine_field(what: str, field: Field = option_field, **display: Any) -> Any:
    """Return the field `engine`; `what` is what Ray's machines share, for the help."""
    return field(
        "local",
        f"local: this machine; ray: the machines of a Ray cluster, {what}.",
        choices=ENGINES,
        result=False,
        **display,
    )


def ray_address_field(field: Field = option_field, **display: Any) -> Any:
    """Return the field `ray_address`."""
    return field(
        None,
        "With --engine ray: the head of a cluster.",
        default_text="a Ray of this machine alone",
        metavar="HOST:PORT",
        result=False,
        **display,
    )


def beside_engine(option: str, value: object, engine: str, *, why: str = "", repair: str) -> str:
    """Return the message for an option that has no effect with an engine.

    Examples
    --------
    >>> beside_engine("--jobs", 2, "ray", why="which counts cores", repair="leave it out")
    '--jobs: value is 2 beside --engine ray, which counts cores, expected none there; leave it out'
    """
    reason = f", {why}," if why else ","
    return (
        f"{option}: value is {value!r} beside --engine {engine}{reason} expected none there; "
        f"{repair}"
    )


def stopping_line(engine: str) -> str:
    """Return the line for the first Ctrl-C or SIGTERM: on Ray, units do not finish their batch."""
    return ENDING if engine == "ray" else AFTER_BATCH


def check_engine(engine: str, ray_address: str | None) -> None:
    """Raise `InputError` for an address that the engine does not use."""
    if ray_address is not None and engine != "ray":
        repair = "pass --engine ray, or leave the address out"
        raise InputError(beside_engine("--ray-address", ray_address, engine, repair=repair))


def check_may_join(engine: str, ray_address: str | None) -> None:
    """Raise `InputError` if Ray is needed but not installed, or its cluster may not be joined."""
    if engine == "ray":
        check_extra("ray", "--engine ray")
        check_address(ray_address)
