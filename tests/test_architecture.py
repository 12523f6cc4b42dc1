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
# Each package's files and sub-packages, from the ground up: an import leads to what stands before
# it in its package, or to a package before it. Within a sub-package there is only no circle.
ORDER = {
    "common": "lazy counts errors extras names terminal log nearby next_steps locks outputs "
    "signals cpus environment files options click_options commands audio engine",
    "manifests": "options text_files split_record table predictions corrections splits formats "
    "cutting demo cli",
    "extract": "audio store options profiling encoder pipeline planning verification run cli",
    "classify": "options features metrics validity classifiers selection estimator speaker_model "
    "speaker_model_files evaluation experiment clips output report naming auditing linking "
    "cli_analysis cli",
    "finetune": "config_file config_forms config options data model training run prediction cli",
}
PACKAGES = tuple(ORDER)
PLACES = [f"{package}.{name}" for package, names in ORDER.items() for name in names.split()]


def module_name(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


FILES = {
    module_name(path): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
FILES |= {name: ROOT / f"{name}.py" for name in ("__main__", "info")}
WITH_TORCH = {
    "extract.encoder": "device encoder frontend kernels loading pooling transformer varlen",
    "finetune.data": "dataset",
    "finetune.model": "checkpoint encoder frozen_cache heads module",
    "finetune.training": "callbacks resume train_session",
}
ENTRY_POINTS = ("cli", "cli_analysis", "__main__")
# Shorter by nature: one promise that many packages stand on, or one rule of one corpus.
SHORT_BY_NATURE = (
    "common.counts",
    "common.cpus",
    "common.errors",
    "common.lazy",
    "manifests.splits.roll_call",
)
SHORTEST_FILE = 50  # lines; what is shorter belongs to its neighbour
LONGEST_FUNCTION = 40  # code lines
LONGEST_FILE = 400
NO_LAYOUT = frozenset(
    (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
)


def imports_of(module):
    """Yield the modules of spk that a module imports at run time, wherever the import stands."""
    path = FILES[module]
    parts = path.relative_to(ROOT).with_suffix("").parts
    tree = ast.parse(path.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and id(node) not in for_types:
            source = [*parts[: -node.level], *(node.module or "").split(".")]
            source = ".".join(part for part in source if part)
            for alias in node.names:
                name = f"{source}.{alias.name}"
                yield name if name in FILES else source


def place_of(module):
    """Return the file or sub-package of `ORDER` that a module belongs to, or None for a face."""
    return next((p for p in PLACES if module == p or module.startswith(f"{p}.")), None)


def circle_from(module, graph):
    """Return the modules of a circle of imports through `module`, or nothing."""
    stack, seen = [(module, (module,))], set()
    while stack:
        last, way = stack.pop()
        for name in graph[last]:
            if name == module:
                return way
            if name not in seen:
                seen.add(name)
                stack.append((name, (*way, name)))
    return ()


def functions_of(path):
    tree = ast.parse(path.read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


def code_lines(path):
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    return {token.start[0] for token in tokens if token.type not in NO_LAYOUT}


def test_every_file_has_its_place_in_the_order():
    inner = {module for module in FILES if "." in module}
    assert {module for module in inner if place_of(module) is None} == set()
    assert {place for place in PLACES if place not in map(place_of, inner)} == set()


@pytest.mark.parametrize("module", [module for module in FILES if "." in module])
def test_a_file_imports_only_what_stands_before_it(module):
    here = PLACES.index(place_of(module))
    places = {name: place_of(name) for name in imports_of(module)}
    above = [n for n, place in places.items() if place is None or PLACES.index(place) > here]
    assert above == []


def test_no_circle_of_imports():
    graph = {module: {n for n in imports_of(module) if n in FILES} for module in FILES}
    assert [way for module in FILES if (way := circle_from(module, graph))] == []


@pytest.mark.parametrize("module", FILES)
def test_a_file_is_worth_opening(module):
    entry = FILES[module].name == "__init__.py" or module.rpartition(".")[2] in ENTRY_POINTS
    if not entry and module not in SHORT_BY_NATURE:
        assert FILES[module].read_text().count("\n") >= SHORTEST_FILE


@pytest.mark.slow
def test_what_needs_no_torch_imports_none():
    with_torch = {f"{p}.{name}" for p, names in WITH_TORCH.items() for name in names.split()}
    assert with_torch <= FILES.keys()
    modules = [f"spk.{module}" for module in FILES if module not in with_torch]
    code = (
        f"import sys, importlib; [importlib.import_module(m) for m in {modules}]; "
        "print([m for m in ('torch', 'torchaudio', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "command", ["manifests", "extract", "classify", "classify.naming", "finetune"]
)
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


VAGUE_NAMES = frozenset(("asked", "found", "held", "kept", "known", "one", "told"))
SCRIPTS = sorted(
    path
    for pattern in ("*.py", "benchmarks/**/*.py", "recipes/**/*.py", ".ci/*.py")
    for path in ROOT.glob(pattern)
)


def is_bound(node):
    """Tell whether a node gives a name to a variable or a parameter."""
    if isinstance(node, ast.Name):
        return isinstance(node.ctx, ast.Store)
    return isinstance(node, (ast.arg, ast.ExceptHandler))


def local_names(tree):
    """Yield (name, line) of each variable and parameter; a field of a class is neither."""
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    fields = [line.target for node in classes for line in node.body if hasattr(line, "target")]
    for node in ast.walk(tree):
        if is_bound(node) and node not in fields:
            name = getattr(node, "id", getattr(node, "arg", getattr(node, "name", None)))
            yield name, node.lineno


@pytest.mark.parametrize("path", sorted({*FILES.values(), *SCRIPTS}), ids=module_name)
def test_a_local_name_says_what_it_holds(path):
    names = local_names(ast.parse(path.read_text()))
    assert [(name, line) for name, line in names if name in VAGUE_NAMES] == []


def test_there_is_no_assert_outside_tests():
    for path in FILES.values():
        nodes = ast.walk(ast.parse(path.read_text()))
        assert not [node.lineno for node in nodes if isinstance(node, ast.Assert)], path


ARRAYS = re.compile(r"^(?!.*Callable).*\b(ndarray|DataFrame|Series|Tensor)\b")


@pytest.mark.parametrize("package", PACKAGES)
def test_what_holds_arrays_is_compared_by_identity(package):
    """Since Python 3.13 dataclasses compare field by field, which arrays answer with an array."""
    found = []
    for module, path in FILES.items():
        nodes = ast.walk(ast.parse(path.read_text())) if module.startswith(f"{package}.") else ()
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
