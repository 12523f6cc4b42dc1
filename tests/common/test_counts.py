"""Promises about counts in messages: no "1 segments", in any message or page of any command."""

import ast
import re
from pathlib import Path

import pytest

from spk.common.counts import agree, counted

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("common", "manifests", "extract", "classify", "finetune", "benchmarks")
FILES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
TEMPLATES = sorted((ROOT / "classify/report/templates").glob("*.html"))
NOUNS = (
    "arguments|arrays|bytes|channels|classes|classifiers|clips|clusters|columns|combinations|cores|"
    "corrections|devices|entries|epochs|errors|faults|features|fields|files|folds|folders|"
    "intervals|labels|layers|lengths|lines|machines|meetings|models|names|notes|numbers|pairs|"
    "persons|points|recordings|rounds|rows|runs|samples|segments|sessions|sets|shapes|shards|"
    "speakers|stores|strangers|tasks|tensors|tiers|trees|trials|tries|turns|units|values|vectors|"
    "weights|windows|words"
)
ADJECTIVE = r"(?!(?:as|at|by|for|from|has|have|in|is|of|on|one|the|to|two|with)\b)[a-z]+ "
BARE_NOUN = re.compile(rf" (?:{ADJECTIVE}){{0,2}}(?:{NOUNS})\b(?!\.csv)")
BARE_VERB = re.compile(r" (?:are|have|were|do)\b")
NEVER_ONE = re.compile(r"[A-Z][A-Z_]+(?: [-+] 1)?")  # a constant
NO_COUNT = ("dtype", "empty[0]", "kind", "name", "split", "text", "tier")  # words, not numbers


def values_in_messages(path):
    """Yield (line, text before, value, text after) of the values in a file's f-strings."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            texts = [part.value if isinstance(part, ast.Constant) else "" for part in node.values]
            for place, value in enumerate(node.values):
                if isinstance(value, ast.FormattedValue):
                    before, after = ["", *texts][place], [*texts, ""][place + 1]
                    yield value.lineno, before, value, after


def is_decimal(value):
    """Tell whether a value is written with a point, as in the 1.0 points that need no singular."""
    spec = "" if value.format_spec is None else ast.unparse(value.format_spec)
    return re.search(r"[efg]'$", spec) is not None


def faults_of(path):
    """Yield where a number stands before a plural of its own, or its noun before such a verb."""
    for line, before, value, after in values_in_messages(path):
        text = ast.unparse(value.value)
        if text.startswith(("counted(", "agree(")):
            bare = BARE_VERB.match(after) and text.startswith("counted(") and "0 of" not in before
        else:
            passed = NEVER_ONE.fullmatch(text) or text in NO_COUNT or is_decimal(value)
            bare = BARE_NOUN.match(after) and not passed
        if bare:
            yield f"{path.relative_to(ROOT)}:{line}: {{{text}}}{after[:40]}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_message_writes_a_number_before_a_plural(path):
    assert list(faults_of(path)) == []
    assert not re.search(r"""(['"])s\1 (?:if|\*) """, path.read_text())


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_page_writes_a_number_before_a_plural(path):
    text = path.read_text()
    assert not re.findall(rf"\}}\}}{BARE_NOUN.pattern}", text)
    assert not re.search(r"""(['"])s\1 if """, text)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (counted(1, "segment"), "1 segment"),
        (counted(0, "segment", "is"), "0 segments are"),
        (counted(1, "segment", "lies"), "1 segment lies"),
        (counted(2, "segment", "lies"), "2 segments lie"),
        (counted(1, "segment", "has", of=1), "1 of 1 segment has"),
        (counted(1, "segment", "has", of=3), "1 of 3 segments has"),
        (counted(2, "class", "does", of=3), "2 of 3 classes do"),
        (agree(1, "it", "them"), "it"),
        (agree(0, "it", "them"), "them"),
    ],
)
def test_nouns_and_verbs_agree_with_their_number(call, text):
    assert call == text
