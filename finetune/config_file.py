"""Read and write a settings file: flat YAML, whose values are read as written.

No object is ever made from the YAML's tags: its nodes are walked, and a value is text, true, false,
null, or a list of these. Thus ``3e-5``, which PyYAML reads as text, and ``001``, which it reads as
a number, both arrive as written, and the setting's field decides the type.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..common.errors import InputError
from ..common.files import atomic_write
from ..common.options import shorten

PRESETS = Path(__file__).with_name("presets")
LARGEST = 1_000_000  # bytes of a file
TEXTS = ("str", "int", "float", "timestamp")  # YAML types that are read as written
TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
TAG = "tag:yaml.org,2002:"


def read_settings(
    source: str | Path, keys: Collection[str], former: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the values of a file, or of a preset by its name, as written.

    A former key is replaced by the current one (`former`).

    Raises
    ------
    InputError
        There is no such file, it is not YAML of known keys without repetition, or a value is nested
        or has a tag.
    """
    settings: dict[str, Any] = {}
    for key, value in _pairs(source, _content(source)):
        name = (former or {}).get(key.value, key.value)
        check_key(name, keys, f"{source}: key")
        if name in settings:
            raise InputError(
                f"{source}: key {name!r} is given twice, the second time in line "
                f"{key.start_mark.line + 1}, expected once; delete one of the two"
            )
        settings[name] = _value(f"{source}: {name}", value)
    return settings


def write_settings(values: Mapping[str, Any], path: str | Path) -> None:
    """Write a file that `read_settings` reads, atomically."""
    import yaml

    plain = {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=10**6)
    atomic_write(path, text.encode())


def check_key(name: str, names: Collection[str], what: str) -> None:
    """Raise `InputError` for an unknown name, suggesting one that it resembles."""
    if name not in names:
        close = difflib.get_close_matches(name[:60], names, n=1)
        repair = f"did you mean {close[0]!r}?" if close else "delete it"
        raise InputError(
            f"{what} {shorten(name)} is unknown, expected one of the known ones; {repair}"
        )


def presets() -> list[str]:
    """Return the names of the presets."""
    return sorted(file.stem for file in PRESETS.glob("*.yaml"))


def _content(source: str | Path) -> bytes:
    path = PRESETS / f"{source}.yaml" if str(source) in presets() else Path(source)
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise InputError(
            f"{source}: no such file, expected a YAML file or one of the presets {presets()}; "
            "name one"
        ) from None
    except OSError as problem:
        raise InputError(
            f"{source}: cannot be read ({problem.strerror}), expected a YAML file; let it be read"
        ) from None
    if len(content) > LARGEST:
        raise InputError(
            f"{source}: size is over {LARGEST} bytes, expected a file of settings; name another"
        )
    return content


def _pairs(source: str | Path, content: bytes) -> list[tuple[Any, Any]]:
    """Return the (key, value) node pairs of a YAML mapping."""
    import yaml

    try:
        node = yaml.compose(content, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as problem:
        mark = getattr(problem, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        parts = [getattr(problem, part, None) for part in ("context", "problem")]
        reason = " ".join(filter(None, parts)) or str(problem).partition("\n")[0]
        raise InputError(
            f"{source}{place}: cannot be read ({reason}), expected YAML; correct it"
        ) from None
    if not isinstance(node, yaml.MappingNode):
        kind = "nothing" if node is None else f"a {node.id}"
        raise InputError(f"{source}: content is {kind}, expected lines 'key: value'; correct it")
    if node.tag != f"{TAG}map":
        raise InputError(f"{source}: tag is {node.tag!r}, expected none; delete it")
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise InputError(f"{source}: key is a {key.id}, expected a name; correct it")
    return list(node.value)


def _value(where: str, node: Any) -> Any:
    """Return a node's value: text, boolean, None, or a list of these."""
    import yaml

    if isinstance(node, yaml.SequenceNode) and node.tag == f"{TAG}seq":
        if any(isinstance(part, yaml.CollectionNode) for part in node.value):
            raise InputError(f"{where} is a nested list, expected plain values; correct it")
        return [_value(where, part) for part in node.value]
    kind = node.tag.removeprefix(TAG)
    if isinstance(node, yaml.ScalarNode) and kind in TEXTS:
        return str(node.value)
    if isinstance(node, yaml.ScalarNode) and kind == "null":
        return None
    if isinstance(node, yaml.ScalarNode) and kind == "bool" and node.value.lower() in TRUTH:
        return TRUTH[node.value.lower()]
    form = "a mapping" if kind == "map" else f"a value with the tag {node.tag!r}"
    raise InputError(f"{where} is {form}, expected a plain value or a list of them; write it so")
