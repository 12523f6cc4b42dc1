"""A newcomer's walk on the command line: people of three meetings are named in a new one."""

import base64
import hashlib
import html
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from browser import CLIP_SECONDS, open_browser
from click.testing import CliRunner

from spk.__main__ import main
from spk.manifests.formats.registry import read_turns, write_turns

NEW, STRANGER = "20990101_S_R001S03C01", "dsp07"
NAMED = ("20990101_S_R001S01C01", "20990101_S_R001S02C01", "20990102_M_R002S01C01")


def typed(line, codes=(0,)):
    """Run a line as a user types it; return what it printed."""
    done = CliRunner().invoke(main, line.split()[1:], prog_name="spk", catch_exceptions=False)
    assert done.exit_code in codes, (line, done.output)
    return done.output


@pytest.fixture(scope="module")
def walked(real_data, tmp_path_factory):
    """Return the folder in which the walk was done, and what each command printed."""
    meetings, folder = real_data / "meetings", tmp_path_factory.mktemp("walk")
    (folder / "known").mkdir()
    for name in NAMED:
        shutil.copy(meetings / "TextGrid" / f"{name}.rttm", folder / "known")
    people = pd.read_csv(meetings / "people.csv")
    people[people["person"] != STRANGER].to_csv(folder / "people.csv", index=False)
    rttm = (meetings / "TextGrid" / f"{NEW}.rttm").read_text()
    for row in people[people["session"] == NEW].itertuples():
        rttm = rttm.replace(row.speaker, row.person)
    (folder / "truth.rttm").write_text(rttm)
    wav, out = meetings / "wav", folder / "out"
    new = f"{meetings}/TextGrid/{NEW}.rttm --audio {wav}/{NEW}.flac"
    lines = [
        f"spk manifests rttm {folder}/known {folder}/turns.csv --audio-root {wav}",
        f"spk extract {folder}/turns.csv {folder}/features --audio-root {wav} --encoder small",
        f"spk name enrol {folder}/team.voices {folder}/turns.csv {folder}/features "
        f"--identity {folder}/people.csv --audio-root {wav}",
        f"spk name apply {folder}/team.voices {new} --output {out} --review",
        f"spk name score {out} {folder}/truth.rttm",
    ]
    return folder, [typed(line) for line in lines]


def test_in_five_commands_everybody_has_the_right_name_and_the_stranger_none(walked):
    folder, printed = walked
    rows = pd.read_csv(folder / "out" / "names.csv").set_index("cluster")
    assert rows["name"].to_dict() == {
        "001-M": "dsp02",
        "002-F": "dsp03",
        "003-M": "dsp04",
        "004-M": "dsp05",
        "005-F": "unknown_1",
    }
    assert rows.loc["005-F", "reason"] == "stranger"
    assert "004-M is dsp05 (probability" in printed[3]
    assert printed[4].startswith("open-set identification error 0.0 % of ")


def test_a_second_run_extracts_nothing_and_changes_nothing(walked, real_data, monkeypatch):
    folder, _ = walked
    before = {path: path.read_bytes() for path in (folder / "out").glob("*.*")}

    def fail(*arguments, **options):
        raise AssertionError("extracted again")

    monkeypatch.setattr("spk.classify.naming.extraction.run_extraction", fail)
    meetings = real_data / "meetings"
    typed(
        f"spk name apply {folder}/team.voices {meetings}/TextGrid/{NEW}.rttm "
        f"--audio-root {meetings}/wav --output {folder}/out --review"
    )
    assert {path: path.read_bytes() for path in (folder / "out").glob("*.*")} == before


@pytest.mark.parametrize("form", ["nemo", "kaldi"])
def test_a_diarization_that_lists_its_recording_needs_no_option_for_it(
    walked, real_data, tmp_path, form
):
    folder, _ = walked
    rows = pd.DataFrame(read_turns(real_data / "meetings" / "TextGrid" / f"{NEW}.rttm").turns)
    place, out = tmp_path / ("new.nemo.json" if form == "nemo" else "new"), tmp_path / "out"
    write_turns(rows, place, form, audio={NEW: real_data / "meetings" / "wav" / f"{NEW}.flac"})
    shutil.copytree(folder / "out" / "features", out / "features")
    typed(f"spk name apply {folder}/team.voices {place} -o {out}")
    assert (out / "names.csv").read_text() == (folder / "out" / "names.csv").read_text()
    write_turns(rows, place, form, audio={NEW: tmp_path / "no.flac"})
    done = typed(f"spk name apply {folder}/team.voices {place} -o {tmp_path}/other", codes=(1,))
    assert "no.flac' is not there, expected the path of a recording" in done
    assert "allow-unpaired" not in done, "which this command has not"


def test_the_same_words_in_python_give_the_same_names(walked, real_data):
    from spk.classify import naming

    folder, _ = walked
    meetings = real_data / "meetings"
    voices = naming.enrol(
        folder / "turns.csv",
        folder / "features",
        identity=folder / "people.csv",
        log=lambda line: None,
    )
    named = naming.apply(
        voices,
        meetings / "TextGrid" / f"{NEW}.rttm",
        audio=meetings / "wav" / f"{NEW}.flac",
        cache=folder / "out",
        log=lambda line: None,
    )
    rows = pd.read_csv(folder / "out" / "names.csv")
    assert named.clusters["name"].tolist() == rows["name"].tolist()
    assert {*named.turns["name"]} == {*rows["name"]}


def test_who_is_not_enrolled_is_counted_where_a_name_is_given(walked, real_data, tmp_path):
    folder, _ = walked
    shutil.copytree(folder / "out", tmp_path / "out")
    rttm = tmp_path / "out" / f"{NEW}.rttm"
    text = rttm.read_text()
    rttm.write_text(text.replace("unknown_1", "dsp02").replace("dsp04", "unknown_2"))
    printed = typed(f"spk name score {tmp_path}/out {folder}/truth.rttm -o {tmp_path}/e.csv")
    row = pd.read_csv(tmp_path / "e.csv").iloc[-1]
    truth = pd.read_csv(folder / "truth.rttm", sep=" ", header=None)
    assert row["stranger_named"] == pytest.approx(truth[4][truth[7] == STRANGER].sum(), abs=0.1)
    assert row["known_missed"] == pytest.approx(truth[4][truth[7] == "dsp04"].sum(), abs=0.1)
    assert row["wrong_name"] == 0
    assert "stranger named: " in printed
    (tmp_path / "a.uem").write_text(f"{NEW} 1 0 4.2\n")  # the roll call: dsp02 speaks there
    typed(
        f"spk name score {tmp_path}/out {folder}/truth.rttm --uem {tmp_path}/a.uem "
        f"-o {tmp_path}/u.csv"
    )
    assert pd.read_csv(tmp_path / "u.csv")["error"].tolist() == [0.0, 0.0]


def test_a_doubtful_name_ends_with_exit_code_3(walked, real_data, tmp_path):
    folder, _ = walked
    meetings = real_data / "meetings"
    new = f"{meetings}/TextGrid/{NEW}.rttm --audio {meetings}/wav/{NEW}.flac"
    shutil.copytree(folder / "out" / "features", tmp_path / "out" / "features")
    line = f"spk name apply {folder}/team.voices {new} -o {tmp_path}/out --min-seconds 40 --review"
    printed = typed(line, codes=(3,))
    assert re.search(r"005-F is unknown_1 \(.*short, perhaps dsp\d+\)  doubtful", printed)

    page = (tmp_path / "out" / "review.html").read_text()
    cards = re.findall(r'<li class="card".*?</li>', page, re.DOTALL)
    assert ["doubtful</span>" in card for card in cards] == [True, False, False, False, False]
    assert "Too little speech that is nobody else&#39;s" in cards[0]


@pytest.fixture(scope="module")
def page(walked):
    return (walked[0] / "out" / "review.html").read_text()


def test_the_review_page_has_a_card_for_each_cluster_doubtful_ones_first(walked, page):
    rows = pd.read_csv(walked[0] / "out" / "names.csv")
    cards = re.findall(r'<li class="card".*?</li>', page, re.DOTALL)
    heads = [re.search(r"<strong>(.*?)</strong> is <strong>(.*?)</strong>", card) for card in cards]
    shown = [head.groups() for head in heads]
    assert sorted(shown) == sorted(zip(rows["cluster"], rows["name"], strict=True))
    doubtful = ["doubtful</span>" in card for card in cards]
    assert doubtful == sorted(doubtful, reverse=True)
    assert {*re.findall(r'<section id="([a-z-]+)"', page)} == {
        *("summary", "clusters", "listen", "meetings", "provenance"),
    }
    assert all(f'id="{name}"' in page for name in re.findall(r'<a href="#([a-z-]+)"', page))


def test_clips_of_a_cluster_stand_beside_clips_of_the_enrolled_voice(page):
    (card,) = [
        card
        for card in re.findall(r'<li class="card".*?</li>', page, re.DOTALL)
        if "<strong>004-M</strong>" in card
    ]
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", card)
    assert sum(text.startswith("004-M at ") for text in captions) >= 2
    assert sum(text.startswith("dsp05 as enrolled, 20990101_S_R001S0") for text in captions) == 2
    sounds = json.loads(html.unescape(re.search(r'id="sounds">(.*?)</script>', page, re.DOTALL)[1]))
    players = re.findall(r'data-clip="([^"]+)"', page)
    assert {*players} == {*sounds}
    assert all(sound.startswith("data:audio/flac;base64,") for sound in sounds.values())


def test_only_the_pages_own_script_may_run_and_nothing_is_fetched(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}';" in policy
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', page)
    ids = re.findall(r'\sid="([^"]*)"', page)
    assert len({*ids}) == len(ids)


def test_the_review_page_plays_every_clip_in_a_browser_and_fetches_nothing(walked, tmp_path):
    shown = open_browser(tmp_path)
    try:
        shown.open(walked[0] / "out" / "review.html")
        lengths = shown.run(CLIP_SECONDS)
        assert len(lengths) > 10
        assert 0.5 <= min(lengths) <= max(lengths) <= 10.0
        assert shown.troubles == []
        assert [url for url in shown.requests() if not url.startswith("data:")] == []
        for width in (1280, 390):
            shown.look(width=width, mobile=width < 400, whole=False)
            assert shown.run("document.documentElement.scrollWidth") <= width
    finally:
        shown.close()


def test_a_recording_that_is_gone_is_a_note_in_the_clips_place(walked, real_data):
    from dataclasses import replace

    from spk.classify import naming
    from spk.classify.naming.review import review_page

    folder, _ = walked
    meetings = real_data / "meetings"
    voices = naming.load_voices(folder / "team.voices")
    gone = tuple(replace(sample, audio="/gone.flac") for sample in voices.samples)
    named = naming.apply(
        replace(voices, samples=gone),
        meetings / "TextGrid" / f"{NEW}.rttm",
        audio=meetings / "wav" / f"{NEW}.flac",
        cache=folder / "out",
        log=lambda line: None,
    )
    assert "not to be heard: /gone.flac: the file is missing" in review_page(named)
    page = review_page(replace(named, voices=replace(voices, samples=())))
    assert "no audio was named when this person was enrolled" in page


def test_list_tells_who_is_enrolled_and_remove_takes_one_out(walked, tmp_path):
    folder, _ = walked
    shutil.copy(folder / "team.voices", tmp_path / "team.voices")
    printed = typed(f"spk name list {tmp_path}/team.voices")
    assert re.search(r"dsp10 +1 +\d+ ", printed)
    assert "calibration: " in printed
    typed(f"spk name remove {tmp_path}/team.voices dsp10")
    assert "dsp10" not in typed(f"spk name list {tmp_path}/team.voices")
    done = CliRunner().invoke(main, ["name", "remove", f"{tmp_path}/team.voices", "dsp10"])
    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    assert "NAME: 'dsp10' is not enrolled" in done.output


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("apply {v} {r} -o {o}", "--audio, --audio-root: none is given"),
        ("apply {v} {r} --audio {a} --audio-root {w} -o {o}", "both are given"),
        ("apply {v} {w} --audio {a} -o {o}", "holds no file of a known format"),
        ("apply {v} {r} --audio {w} -o {o}", "is not a file, expected the recording"),
        ("apply {v} {r} --audio {r} -o {o}", "expected audio that libsndfile decodes|is not audio"),
        (
            "apply {v} {r} --audio {a} -o {o} --present Nobody",
            "--present: 'Nobody' is not enrolled",
        ),
        ("apply {v} {r} --audio {a} -o {o} --encoder demo", "made with another encoder"),
        ("apply {r} {r} --audio {a} -o {o}", "cannot be read as voices"),
        ("apply {v} {k} --audio {a} -o {o}", "one recording is given for 3 sessions"),
        ("score {k} {r}", "no naming.json can be read there"),
    ],
)
def test_what_can_be_repaired_is_one_line(walked, real_data, tmp_path, line, message):
    meetings = real_data / "meetings"
    words = line.format(
        v=walked[0] / "team.voices",
        r=meetings / "TextGrid" / f"{NEW}.rttm",
        a=meetings / "wav" / f"{NEW}.flac",
        w=meetings / "wav",
        k=walked[0] / "known",
        o=tmp_path / "out",
    ).split()
    done = CliRunner().invoke(main, ["name", *words], catch_exceptions=False)
    assert done.exit_code == 1, done.output
    assert re.search(message, done.output)
    assert not Path(tmp_path / "out" / "names.csv").exists()


@pytest.mark.parametrize(
    "words",
    [["v"], ["v", "t.csv"], ["v", "t.csv", "s", "--clips", "c"], ["v", "--clips", "c", "t.csv"]],
)
def test_table_and_store_or_clips_are_given(words):
    done = CliRunner().invoke(main, ["name", "enrol", *words])
    assert done.exit_code == 2
    assert "Give TABLE and STORE, or --clips FOLDER." in done.output
