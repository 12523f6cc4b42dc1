"""Through the command line: audit, correct, audit again."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from spk.__main__ import main as spk
from spk.classify.cli import main as classify
from spk.manifests.table import read_table, write_table

LEARNT = ("--layers", "1", "--classifiers", "ridge", "--jobs", "1")


def run(command, *words):
    return CliRunner().invoke(command, [*map(str, words)])


def folder_of(path):
    return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}


def test_an_audit_is_corrected_and_the_next_finds_nothing_more(swapped, store, tmp_path):
    changed, truth = swapped
    table, out, new = (tmp_path / name for name in ("table.csv", "out", "new.csv"))
    write_table(changed, table)
    said = run(spk, "classify", "audit", table, store.path, out, *LEARNT)
    assert said.exit_code == 0, said.output
    assert {*folder_of(out)} == {"audit.csv", "corrections.csv", "audit.json", "audit.html"}
    proposed = pd.read_csv(out / "corrections.csv")
    assert len(proposed) >= 0.8 * len(truth)
    described = json.loads((out / "audit.json").read_text())
    assert described["proposed"] == len(proposed) == described["kinds"]["swap"]
    done = run(spk, "manifests", "correct", table, out / "corrections.csv", "-o", new)
    assert done.exit_code == 0, done.output
    corrected = read_table(new).set_index("segment_id")["speaker"]
    planted = proposed[proposed["segment_id"].isin([*truth])]["segment_id"]
    assert [corrected[name] for name in planted] == [truth[name] for name in planted]
    again = run(classify, "audit", new, store.path, tmp_path / "again", *LEARNT)
    assert again.exit_code == 0, again.output
    rest = pd.read_csv(tmp_path / "again" / "corrections.csv")
    assert len(rest) <= 2
    assert not rest["segment_id"].isin(planted).any()


def test_the_same_audit_has_the_same_bytes_and_another_is_refused(swapped, store, tmp_path):
    table, out = tmp_path / "table.csv", tmp_path / "out"
    write_table(swapped[0], table)
    words = ("audit", table, store.path, out, *LEARNT)
    assert run(classify, *words).exit_code == 0
    before = folder_of(out)
    assert run(classify, *words).exit_code == 0
    assert folder_of(out) == before
    other = run(classify, *words, "--min-probability", "0.99")
    assert other.exit_code == 1
    assert "exists with other content" in other.output
    assert folder_of(out) == before
    assert run(classify, *words, "--min-probability", "0.99", "--overwrite").exit_code == 0


def test_a_folder_of_the_users_own_is_refused_before_anything_is_made(table, store, tmp_path):
    """Also the halves of turns, which are extracted long before the audit is written."""
    write_table(table, tmp_path / "table.csv")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "audit.csv").write_text("mine")
    words = ("audit", tmp_path / "table.csv", store.path, tmp_path / "out", *LEARNT)
    said = run(classify, *words, "--audio-root", tmp_path)
    assert said.exit_code == 1
    assert "holds 'audit.csv' and no audit.json" in said.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["audit.csv"]


def test_turns_that_cannot_be_judged_are_listed_with_exit_code_3(table, store, tmp_path):
    first = table["session"].iloc[0]
    lonely = (table["session"] != first) | table["speaker"].str.endswith("001-M")
    write_table(table[lonely].reset_index(drop=True), tmp_path / "table.csv")
    said = run(classify, "audit", tmp_path / "table.csv", store.path, tmp_path / "out", *LEARNT)
    assert said.exit_code == 3
    assert f"left out: 20 turns of {first}" in said.output
    turns = pd.read_csv(tmp_path / "out" / "audit.csv", keep_default_na=False)
    assert (turns["reason"] != "").sum() == 20


def test_without_cleanlab_the_extra_is_named(swapped, store, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cleanlab", None)
    write_table(swapped[0], tmp_path / "table.csv")
    said = run(classify, "audit", tmp_path / "table.csv", store.path, tmp_path / "out", *LEARNT)
    assert said.exit_code == 1
    assert 'pip install "spk-toolkit[audit]"' in said.output


def test_the_page_names_the_turns_and_plays_them(swapped, store, tmp_path):
    import soundfile

    noise = np.random.default_rng(0).normal(0, 0.1, 125 * 16000)
    soundfile.write(tmp_path / "a.wav", noise, 16000, subtype="PCM_16")
    from spk.classify.auditing.options import AuditOptions
    from spk.classify.auditing.page import audit_page
    from spk.classify.auditing.run import run_audit

    settings = {"layers": "1", "classifiers": "ridge", "jobs": 1}
    done = run_audit(swapped[0], store, AuditOptions(**settings))
    silent = audit_page(done)
    assert "No clips: pass --audio-root" in silent
    assert silent.count('<li class="card"') == (done.turns["kind"] != "").sum()
    object.__setattr__(done.options, "audio_root", str(tmp_path))
    object.__setattr__(done.options, "shown", 2)
    heard = audit_page(done)
    assert heard.count('<li class="card"') == 2
    assert heard.count("<audio") == 6  # the turn, the labelled speaker, the better one
    assert "data:audio/flac;base64," in heard
    assert audit_page(done) == heard
    sure = replace(done, turns=done.turns.assign(kind="", issue=False))
    assert "No turn is doubtful." in audit_page(sure)
    assert "filters" not in audit_page(sure).partition("<main>")[2].partition("<script")[0]


@pytest.mark.slow
def test_errors_planted_in_real_voices_are_found_through_the_command_line(
    swap, real_data, tmp_path
):
    from spk.extract import extract
    from spk.manifests import make_table, read_rttm

    meetings = real_data / "meetings"
    table = make_table(read_rttm(meetings / "TextGrid"), audio_root=meetings / "wav")
    series = table["session"].str.startswith("20990101")
    turns = table[series].reset_index(drop=True)
    where = {"audio_root": meetings / "wav", "encoder": "small", "log": lambda line: None}
    extract(turns, tmp_path / "store", **where)
    long = turns["end"] - turns["start"] >= 1.5  # a shorter turn is not proposed
    changed, truth = swap(turns[long].reset_index(drop=True), count=5)
    names = dict(zip(changed["segment_id"], changed["speaker"], strict=True))
    labels = turns["segment_id"].map(names).fillna(turns["speaker"])
    write_table(turns.assign(speaker=labels), tmp_path / "table.csv")
    words = ("audit", tmp_path / "table.csv", tmp_path / "store", tmp_path / "out", "--jobs", 1)
    said = run(classify, *words)
    assert said.exit_code == 0, said.output
    proposed = pd.read_csv(tmp_path / "out" / "corrections.csv")
    right = [truth.get(row.segment_id) == row.suggested for row in proposed.itertuples()]
    assert sum(right) >= len(truth) / 2
    assert sum(right) >= len(right) / 2
