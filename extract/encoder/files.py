"""Check the files of an encoder's folder before any weights are loaded.

Placeholders (a git-lfs pointer, a web page saved instead of the file) are recognised as such. Of
safetensors, only the header is read, which gives the dtype of each tensor.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...common.errors import InputError

WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
FLOATS = ("F16", "BF16", "F32", "F64")  # as safetensors names them
COUNTER = "num_batches_tracked"  # of batch norm: the only integer tensor of an encoder
POINTERS = {
    b"version https://git-lfs.github.com/spec/": "git lfs pull",
    b"version http://git-media.io/v/": "git lfs pull",
    b"# xet version": "git xet pull",
}
WEB_PAGES = (b"<!doctype html", b"<html")
LONGEST_HEADER = 100_000_000  # bytes; the format's own limit


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files, preferring safetensors."""
    for pattern in WEIGHTS:
        files = sorted(folder.glob(pattern))
        if files:
            return files
    return []


def check_content(path: Path) -> None:
    """Raise `InputError` if a file is empty or only a placeholder for another."""
    try:
        with path.open("rb") as file:
            first = file.read(64)
    except OSError as problem:
        raise InputError(
            f"{path}: cannot be read ({problem.strerror}), expected a file of the encoder; "
            "make it readable, or fetch it again"
        ) from None
    for start, command in POINTERS.items():
        if first.startswith(start):
            raise InputError(
                f"{path}: it is a git-lfs pointer, not the file that it stands for, expected the "
                f"file itself; run `{command}` in {path.parent}"
            )
    if first.lstrip().lower().startswith(WEB_PAGES):
        raise InputError(
            f"{path}: it is a web page, expected a file of the encoder; fetch the file itself"
        )
    if not first:
        raise InputError(f"{path}: it is empty, expected a file of the encoder; fetch it again")


def read_json(path: Path) -> dict[str, Any]:
    """Return a file's JSON object, or raise `InputError`."""
    if path.is_file():
        check_content(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"a {type(content).__name__}")
        return content
    except (OSError, ValueError, RecursionError) as problem:
        raise InputError(
            f"{path}: cannot be read ({problem}), expected a JSON object; save the model again"
        ) from None


def stored_types(path: Path) -> dict[str, str]:
    """Return the dtype of each tensor in a safetensors file, by name; empty if it is damaged.

    Damage is left to the reader of the weights, which reports more detail.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(size)) if size <= LONGEST_HEADER else {}
            return {
                name: str(tensor["dtype"])
                for name, tensor in header.items()
                if name != "__metadata__"
            }
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            return {}


def quantized_tensors(files: Sequence[Path]) -> dict[str, str]:
    """Return the tensors that safetensors files store as other than floating-point numbers."""
    return {
        name: kind
        for file in files
        if file.suffix == ".safetensors"
        for name, kind in stored_types(file).items()
        if kind not in FLOATS and not name.endswith(COUNTER)
    }


def sha256(*paths: Path) -> str:
    """Return the SHA-256 of the files' concatenated bytes."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
