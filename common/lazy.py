"""Public names of a package, imported on first use.

Importing a package must not import torch, h5py or pandas: `--help` answers at once, and a table is
read on a laptop without torch. A type checker sees the names through the package's own
``if TYPE_CHECKING:`` imports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's ``__getattr__`` and ``__dir__``.

    Parameters
    ----------
    package
        ``__name__`` of the package.
    homes
        Public name -> relative module that defines it, such as ``".store.reader"``.

    Examples
    --------
    >>> get, names = lazy_names("spk.common", {"InputError": ".errors"})
    >>> names(), get("InputError").__name__
    (['InputError'], 'InputError')
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name], package), name)

    def names() -> list[str]:
        return sorted(homes)

    return get, names
