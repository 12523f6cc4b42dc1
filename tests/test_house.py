"""Promises about the house itself: who may import whom, how long things are, what examples say."""

import ast
import doctest
import importlib
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Each room's files in the order of the data; a file imports only those before it, and a room only
# itself and the rooms before it.
ORDER = {
    "common": "errors names locks outputs signals cpus files decoder_lines containers lengths "
    "recent audio commands",
    "manifests": "text kinds delimited table annotation rttm textgrid aishell4 pairing assemble "
    "timeline rollcall select purge methods split tasks leaks cut_names reference recording "
    "request cut match voices demo cut_cli cli",
    "extract": "signals spans audio kernels device pooling varlen stages "
    "encoder_files lora preprocessing switches checkpoint frontend layers weights "
    "encoder durable contents shard layout reader listing shard_writer store writing options "
    "batches plan job devices profile accuracy verify run tools export store_cli cli",
    "classify": "data folds linear logistic sums trees classifiers crossval calibrate measures "
    "trials mix cells inputs doubts preparation conclude sweep model folder score compare control "
    "outcome chosen learning openset plot show chosen_cli estimator runs svg figures mistakes "
    "tables meetings sentences beside report report_cli cli",
    "finetune": "forms check settings config origin outcome augment heads trunk data prefix "
    "module tuned sets callbacks resume training fleet settle run predict cli",
}
ROOMS = tuple(ORDER)
FILES = {
    f"{room}.{file.stem}": file for room in ROOMS for file in sorted((ROOT / room).glob("*.py"))
}
TORCH_IN_EXTRACT = (
    "device",
    "encoder",
    "frontend",
    "kernels",
    "layers",
    "pooling",
    "stages",
    "varlen",
    "weights",
)
TORCH_IN_FINETUNE = (
    *("heads", "trunk", "data", "prefix", "module", "tuned", "sets", "callbacks", "resume"),
    "training",
)
WITH_TORCH = (
    *(f"extract.{name}" for name in TORCH_IN_EXTRACT),
    *(f"finetune.{name}" for name in TORCH_IN_FINETUNE),
)
LONGEST_FUNCTION = 40  # code lines
LONGEST_FILE = 400
NO_LAYOUT = frozenset(
    (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
)


def imports_of(module):
    """Yield the modules of spk that a module imports, as `room.file`."""
    room = module.split(".")[0]
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            parts = [room] if node.level == 1 else []
            parts += node.module.split(".") if node.module else []
            names = [alias.name for alias in node.names] if len(parts) < 2 else [None]
            yield from (".".join(p for p in (*parts, name) if p) for name in names)


def functions_of(path):
    tree = ast.parse(path.read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


def code_lines(path):
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    return {token.start[0] for token in tokens if token.type not in NO_LAYOUT}


def test_every_file_has_its_place_in_the_order():
    placed = {f"{room}.{name}" for room, names in ORDER.items() for name in names.split()}
    assert placed == {module for module in FILES if not module.endswith("__init__")}


@pytest.mark.parametrize("module", [m for m in FILES if not m.endswith("__init__")])
def test_a_file_imports_only_what_stands_before_it(module):
    placed = [f"{room}.{name}" for room, names in ORDER.items() for name in names.split()]
    before = placed[: placed.index(module)]
    assert [name for name in imports_of(module) if name in FILES and name not in before] == []
    assert all(name.split(".")[0] in ROOMS for name in imports_of(module) if "." in name)


def test_what_needs_no_torch_imports_none():
    modules = [f"spk.{name}" for name in FILES if name not in WITH_TORCH]
    code = (
        f"import sys, importlib; [importlib.import_module(m) for m in {modules}]; "
        "print([m for m in ('torch', 'torchaudio', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", ["manifests", "extract", "classify", "finetune"])
def test_help_imports_nothing_heavy(command):
    heavy = ("numpy", "pandas", "h5py", "sklearn", "lightgbm", "matplotlib", "torch", "soundfile")
    code = (
        f"import sys, spk.{command}.cli; print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", FILES)
def test_functions_are_read_in_one_breath(module):
    path = FILES[module]
    code = code_lines(path)
    long = {}
    for node in functions_of(path):
        documented = ast.get_docstring(node) is not None
        first = node.body[min(documented, len(node.body) - 1)].lineno
        size = len([line for line in code if first <= line <= node.end_lineno])
        if size > LONGEST_FUNCTION:
            long[node.name] = size
    assert long == {}
    assert path.read_text().count("\n") <= LONGEST_FILE


@pytest.mark.parametrize("module", FILES)
def test_public_functions_have_a_docstring(module):
    tree = ast.parse(FILES[module].read_text())
    assert ast.get_docstring(tree), "the module says what it promises"
    public = [n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    bare = [n.name for n in public if n.name[0] != "_" and not ast.get_docstring(n)]
    assert bare == []


@pytest.mark.parametrize("module", FILES)
def test_examples_in_docstrings_are_true(module):
    assert doctest.testmod(importlib.import_module(f"spk.{module}")).failed == 0


def test_there_is_no_assert_outside_tests():
    for path in FILES.values():
        nodes = ast.walk(ast.parse(path.read_text()))
        assert not [node.lineno for node in nodes if isinstance(node, ast.Assert)], path


ARRAYS = re.compile(r"^(?!.*Callable).*\b(ndarray|DataFrame|Series|Tensor)\b")


@pytest.mark.parametrize("room", ROOMS)
def test_what_holds_arrays_is_compared_by_identity(room):
    """Since Python 3.13 dataclasses compare field by field, which arrays answer with an array."""
    found = []
    for module, path in FILES.items():
        nodes = ast.walk(ast.parse(path.read_text())) if module.startswith(f"{room}.") else ()
        for node in (node for node in nodes if isinstance(node, ast.ClassDef)):
            kinds = [
                ast.unparse(line.annotation)
                for line in node.body
                if isinstance(line, ast.AnnAssign)
            ]
            made = [ast.unparse(made) for made in node.decorator_list]
            compared = any("dataclass" in text and "eq=False" not in text for text in made)
            if compared and any(map(ARRAYS.match, kinds)):
                found.append(f"{module}.{node.name}")
    assert found == []
