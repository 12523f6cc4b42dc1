import base64
import hashlib
import html
import re

import pytest
from click.testing import CliRunner

from spk.classify.cli import main
from spk.classify.report.page import report
from spk.common.errors import InputError
from spk.manifests.table import read_predictions, write_predictions

CONTROL = """of,classes,accuracy,low,high,majority,mean,mean_low,mean_high,mean_majority,segments
label,4,0.9512,0.8123,0.9876,0.25,0.9,0.8,1,0.25,20
person (identity),3,0.9634,0.8234,0.9987,0.5,0.9,0.8,1,0.5,20
meeting,2,0.7171,0.6161,0.8181,0.5,0.7,0.6,0.8,0.5,20
"""
LEARNING = """\
seconds,accuracy,low,high,behind,behind_low,behind_high,segments,speakers,speech,worst,best
1,0.4141,0.2121,0.6161,0.4242,0.1111,0.7373,20,4,1.5,0.3131,0.5151
10,0.8383,0.7171,0.9191,,,,20,3,9.5,0.8282,0.8484
"""
OPEN_SET = """\
wanted,threshold,false_accepts,false_low,false_high,identified,low,high,strangers,known
0.1,0.912345,0.0505,0.0101,0.1515,0.6262,0.5151,0.7373,20,60
"""
EVIL = "<script>document.title='taken'</script>"


@pytest.fixture
def page(heard_page):
    return heard_page


@pytest.fixture(scope="module")
def bare(heard):
    """Return the page of a predictions table alone."""
    return report([str(heard / "two.csv")], errors=0)


@pytest.fixture(scope="module")
def full(heard, predicted, heard_table, tmp_path_factory):
    """Return the page of a run over all labels with every file, and its folder."""
    folder = tmp_path_factory.mktemp("full") / "all"
    model = "lda, layer 0, within corpus"
    write_predictions(predicted(heard_table(), {2}, model), folder / "predictions.csv")
    (folder / "config.json").write_bytes((heard / "one" / "config.json").read_bytes())
    for name, text in (("control", CONTROL), ("learning", LEARNING), ("openset", OPEN_SET)):
        (folder / f"{name}.csv").write_text(text)
    return report([str(folder)], errors=2), folder


def test_what_a_file_says_is_text_and_never_markup(page):
    assert EVIL not in page
    assert (
        html.escape(EVIL) in page
        or html.escape(EVIL, quote=True).replace("&#x27;", "&#39;") in page
    )
    assert "A&<b>" not in page
    assert "A&amp;&lt;b&gt;" in page
    assert page.count("<script") == 2  # the clips' data and the page's own


def test_only_the_pages_own_script_may_run_and_nothing_is_fetched(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}';" in policy
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', page)
    addresses = set(re.findall(r"https?://[^\"' <]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_the_same_input_gives_the_same_bytes(page, heard):
    runs = [str(heard / "one"), str(heard / "two.csv")]
    assert report(runs, table=heard / "table.csv", audio_root=heard / "wav") == page


def test_ids_are_unique_in_the_page(page):
    ids = re.findall(r'\sid="([^"]*)"', page)
    assert len(set(ids)) == len(ids)


def test_the_page_has_every_section(page):
    ids = set(re.findall(r'<section id="([a-z-]+)"', page))
    assert ids == {
        *("summary", "runs", "differences", "layers", "meetings", "strata", "learning"),
        *("open-set", "calibration", "errors", "split", "provenance"),
    }
    assert all(f'id="{name}"' in page for name in re.findall(r'<a href="#([a-z-]+)"', page))


def section(page, name):
    return re.search(rf'<section id="{name}".*?</section>', page, re.DOTALL)[0]


def rows_of(page, name):
    """Return the rows of a section's table as text, cells apart by bars."""
    rows = re.findall(r"<tr>(.*?)</tr>", section(page, name), re.DOTALL)[1:]
    found = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in rows]
    return [
        " | ".join(re.sub(r"<span.*?</span>&nbsp;|</?small>", " ", cell).strip() for cell in row)
        for row in found
    ]


def test_what_lies_beside_a_run_is_shown_as_its_files_say(full):
    page, _ = full
    assert rows_of(page, "control")[1:] == [
        "all | person (identity) | 3 | 96.3 % 82.3 to 99.9 | 50.0 % | 90.0 % 80.0 to 100.0 "
        "| 50.0 % | 20",
        "all | meeting | 2 | 71.7 % 61.6 to 81.8 | 50.0 % | 70.0 % 60.0 to 80.0 | 50.0 % | 20",
    ]
    assert rows_of(page, "learning") == [
        "all | 1 | 41.4 % 21.2 to 61.6 | 42.4 11.1 to 73.7 | 4 | 1.5 | 31.3 to 51.5 | 20",
        "all | 10 | 83.8 % 71.7 to 91.9 |  | 3 | 9.5 | 82.8 to 84.8 | 20",
    ]
    assert rows_of(page, "open-set") == [
        "all | 10.0 % | 0.912345 | 5.1 % 1.0 to 15.2 | 62.6 % 51.5 to 73.7 |  | 20 | 60"
    ]
    told = (
        "With 10 s of speech per speaker 83.8% (71.7% to 91.9%)",
        "Shown to be behind 10 s: 1 s",
        "lets in 5.1% (1.0% to 15.2%) of them on test (the wanted share is within the interval)",
        "the meeting is recognised, by its room or by who is in it",
    )
    assert all(text in page for text in told)
    summary = section(page, "summary")
    assert "the meeting in 71.7 % (61.6 to 81.8)" in summary
    assert "spk-classify sweep says how much" not in summary


def test_what_a_run_lacks_is_reported_with_the_command_that_makes_it(page, heard):
    strangers = section(page, "open-set")
    words = f"spk-classify open-set {heard / 'table.csv'} STORE {heard / 'one'}"
    assert f"<code>{words}</code>" in strangers
    assert "is not the folder of a sweep, which alone has one." in strangers  # two.csv
    assert "<svg" not in strangers
    curve = section(page, "learning")
    assert "<svg" in curve
    assert "spk-classify curve" not in curve


def test_a_table_alone_has_no_section_that_only_a_sweep_could_fill(bare):
    names = set(re.findall(r'<section id="([a-z-]+)"', bare))
    assert not names & {"control", "learning", "open-set", "layers"}


def test_combined_layers_alone_have_no_figures_and_words_may_be_missing(heard, tmp_path):
    write_predictions(read_predictions(heard / "two.csv"), tmp_path / "predictions.csv")
    head = "layers,classifier,valid_accuracy,valid_low,valid_high,chosen"
    (tmp_path / "sweep.csv").write_text(f"{head}\nconcat:0+1,lda,0.625,0.5,0.75,yes\n")
    (tmp_path / "config.json").write_text('{"conclusion": "It names them all."}')
    page = report([str(tmp_path), str(heard / "two.csv")])
    assert "62.5 %<small>50.0 to 75.0</small>" in page
    assert "Accuracy on validation by layer" not in page
    assert page.count("It names them all.") == 1


def test_without_audio_the_page_says_how_to_get_it(heard, full):
    page, _ = full
    assert "<code>--audio-root FOLDER</code>" in page
    assert "<code>--table TABLE</code>" in page
    assert "<audio" not in page
    with_table = report([str(heard / "two.csv")], table=heard / "table.csv")
    assert "<code>--audio-root FOLDER</code>" in with_table
    assert "<code>--table TABLE</code>" not in with_table


def test_a_recording_that_is_missing_is_a_note_and_no_failure(heard, tmp_path):
    page = report([str(heard / "two.csv")], table=heard / "table.csv", audio_root=tmp_path)
    assert "0.wav: the file is missing or cannot be decoded" in page
    assert "<audio" not in page


def test_the_split_and_its_leaks_are_reported(page, bare):
    assert "Nothing beside the table tells how it was split." in page
    assert "of a training segment of the same speaker" in page
    assert "to see how it was split and what leaks" in bare


def test_as_many_errors_as_asked_are_shown(page, full, bare):
    assert page.count('<li class="card"') == 4  # all there are, of two runs
    assert full[0].count('<li class="card"') == 1
    assert "None were asked for." in bare


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"errors": -1}, "errors: -1 is given"),
        ({"audio_root": "wav"}, "audio-root: no table is given"),
        ({"split": "valid"}, "have split 'valid'"),
    ],
)
def test_options_that_cannot_be_are_refused(heard, options, found):
    with pytest.raises(InputError, match=found):
        report([str(heard / "two.csv")], **options)


def test_no_folder_of_recordings_is_refused(heard, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        report([str(heard / "two.csv")], table=heard / "table.csv", audio_root=tmp_path / "x")


def test_the_command_writes_the_page(heard, tmp_path):
    out = tmp_path / "page.html"
    words = [
        "report",
        f"frozen={heard / 'one'}",
        "-o",
        str(out),
        "--title",
        "A & B",
        "--errors",
        "2",
    ]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout == f"wrote {out}: 1 run, {out.stat().st_size / 1e6:.1f} MB\n"
    assert "<title>A &amp; B</title>" in out.read_text()
    assert out.read_text().count('<li class="card"') == 2  # of three


def test_the_command_tells_what_to_repair_in_one_line(tmp_path):
    done = CliRunner().invoke(main, ["report", str(tmp_path), "-o", str(tmp_path / "x.html")])
    assert done.exit_code == 1
    assert "no predictions.csv" in done.stderr
    assert not (tmp_path / "x.html").exists()
