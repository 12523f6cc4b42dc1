"""What spk says of itself to indexes, citations, GitHub and pre-commit is said once and agrees."""

import re
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

import spk
from spk.__main__ import main

ROOT = Path(__file__).resolve().parents[1]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
RELEASE = re.findall(r"^## \[(\d[^\]]*)\] - (\S+)$", CHANGELOG, re.MULTILINE)[0]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
# Of GitHub's schema of issue forms: the kinds of blocks that ask for something.
BLOCKS = {"textarea", "input", "dropdown", "checkboxes", "markdown"}


def test_one_version_everywhere(setup_arguments):
    typed = CliRunner().invoke(main, ["--version"]).output.split()[-1]
    versions = {
        "setup.py": setup_arguments["version"],
        "installed": version("spk-toolkit"),
        "spk --version": typed,
        "CITATION.cff": CITATION["version"],
        "CHANGELOG.md": RELEASE[0],
    }
    assert versions == dict.fromkeys(versions, spk.__version__)


def test_the_citation_has_what_the_format_requires_and_agrees(setup_arguments):
    assert CITATION.keys() >= {"cff-version", "message", "title", "authors"}
    assert CITATION["cff-version"] == "1.2.0"
    assert str(CITATION["date-released"]) == RELEASE[1]
    assert CITATION["license"] == setup_arguments["license_expression"]
    home = setup_arguments["project_urls"]["Homepage"]
    assert (CITATION["repository-code"], CITATION["url"]) == (home, home)
    assert CITATION["authors"] == [{"name": setup_arguments["author"]}]
    assert set(CITATION["keywords"]) <= set(setup_arguments["keywords"])


def test_links_lead_into_the_one_repository(setup_arguments):
    links = setup_arguments["project_urls"]
    assert all(f"{link}/".startswith(f"{links['Homepage']}/") for link in links.values())
    paths = re.findall(r"/(?:tree|blob)/main/(\S+)", " ".join(links.values()))
    assert paths
    assert all((ROOT / path).exists() for path in paths)


def test_no_system_is_claimed_that_no_test_ran_on(setup_arguments):
    classifiers = setup_arguments["classifiers"]
    systems = [name for name in classifiers if name.startswith("Operating System")]
    assert systems == ["Operating System :: POSIX :: Linux"]
    assert not [name for name in classifiers if name.startswith("License")]  # PEP 639


def test_pre_commit_runs_what_make_lint_runs_in_the_pinned_versions():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    pinned = (ROOT / "constraints.txt").read_text().split()
    for hook in hooks:
        assert set(hook.get("additional_dependencies", [])) <= set(pinned), hook["id"]
        assert hook["language"] == "system" or hook["additional_dependencies"], hook["id"]
    recipe = (ROOT / "Makefile").read_text().partition("\nlint: ")[2].partition("\n\n")[0]
    lines = re.findall(r"\t(?:@?\$\(\w+\)/?)(?: --no-print-directory)? ?(.*)", recipe)
    assert [hook["entry"].removeprefix("make ") for hook in hooks] == lines


def test_ci_on_github_runs_the_one_script():
    (job,) = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_is_one_that_github_shows(path):
    form = yaml.safe_load(path.read_text())
    assert form.keys() >= {"name", "description", "body"}
    ids = [block["id"] for block in form["body"]]
    assert len(set(ids)) == len(ids)
    for block in form["body"]:
        assert block["type"] in BLOCKS
        assert block["attributes"]["label"]
    assert any(block.get("validations", {}).get("required") for block in form["body"])


def test_a_bug_report_asks_for_spk_info():
    assert [path.stem for path in FORMS] == ["bug", "feature", "question"]
    labels = [
        block["attributes"]["label"] for block in yaml.safe_load(FORMS[0].read_text())["body"]
    ]
    assert "Output of `spk info`" in labels
