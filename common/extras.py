"""Which extra of `spk-toolkit` installs what, and the one-line error of a command that lacks it.

`pip install spk-toolkit` alone is enough for tables, stores and classifiers, without torch.
``setup.py`` has the versions; a test compares the two lists.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from .errors import InputError

DISTRIBUTION = "spk-toolkit"
# Extra -> modules that it cannot do without. Only two augmentations need torchaudio.
EXTRAS = {
    "audit": ("cleanlab",),
    "extract": ("torch", "transformers"),
    "finetune": ("torch", "transformers", "lightning", "tensorboard", "yaml"),
    "ray": ("ray", "pydantic"),
    "trees": ("lightgbm",),
}


def check_extra(extra: str, where: str) -> None:
    """Raise `InputError` if a module of an extra is not installed; nothing is imported.

    Parameters
    ----------
    extra
        One of `EXTRAS`.
    where
        What needs it: a command, or an option.
    """
    missing = missing_modules(extra)
    if missing:
        raise _missing(extra, where, missing)


def missing_modules(extra: str) -> list[str]:
    """Return the modules of an extra that are not installed; nothing is imported."""
    return [module for module in EXTRAS[extra] if not _is_installed(module)]


def explain_missing_module(problem: ModuleNotFoundError, where: str) -> InputError | None:
    """Return the error for a failed import; None if no extra installs the module."""
    module = (problem.name or "").partition(".")[0]
    extra = next((name for name, modules in EXTRAS.items() if module in modules), None)
    return _missing(extra, where, [module]) if extra else None


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the version of each package, or "not installed"."""
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # an extra; or spk run from a checkout
            versions[package] = "not installed"
    return versions


def _is_installed(module: str) -> bool:
    if module in sys.modules:
        return sys.modules[module] is not None
    return find_spec(module) is not None


def _missing(extra: str, where: str, modules: list[str]) -> InputError:
    verb = "is" if len(modules) == 1 else "are"
    return InputError(
        f"{where}: {', '.join(modules)} {verb} not installed, expected the extra {extra!r}; "
        f'run `pip install "spk-toolkit[{extra}]"`'
    )
