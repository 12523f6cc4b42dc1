import base64
import hashlib
import html
import re

import pytest
from click.testing import CliRunner

from spk.classify.cli import main
from spk.classify.report import report
from spk.manifests.table import InputError, read_predictions, write_predictions

EVIL = "<script>document.title='taken'</script>"
CURVE = "seconds,accuracy,low,high,segments,speakers\n1,0.4,0.2,0.6,20,4\n10,0.8,0.7,0.9,20,4\n"


@pytest.fixture(scope="module")
def page(heard):
    runs = [str(heard / "one"), str(heard / "two.csv")]
    return report(runs, table=heard / "table.csv", audio_root=heard / "wav")


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
    ids = set(re.findall(r'<section id="([a-z]+)"', page))
    assert ids == {
        *("summary", "runs", "differences", "layers", "meetings", "strata"),
        *("calibration", "errors", "split", "provenance"),
    }
    assert all(f'id="{name}"' in page for name in re.findall(r'<a href="#([a-z]+)"', page))


def test_a_learning_curve_is_drawn_where_there_is_one(heard, tmp_path):
    write_predictions(read_predictions(heard / "two.csv"), tmp_path / "predictions.csv")
    assert 'id="learning"' not in report([str(tmp_path)])
    (tmp_path / "learning.csv").write_text(CURVE)
    assert 'id="learning"' in report([str(tmp_path)])


def test_a_sweep_of_combined_layers_alone_has_a_table_and_no_figures(heard, tmp_path):
    write_predictions(read_predictions(heard / "two.csv"), tmp_path / "predictions.csv")
    head = "layers,classifier,valid_accuracy,valid_low,valid_high,chosen"
    (tmp_path / "sweep.csv").write_text(f"{head}\nconcat:0+1,lda,0.625,0.5,0.75,yes\n")
    page = report([str(tmp_path)])
    assert "62.5 %<small>50.0 to 75.0</small>" in page
    assert "Accuracy on validation by layer" not in page


def test_a_run_without_words_stands_beside_one_with_them(heard, tmp_path):
    write_predictions(read_predictions(heard / "two.csv"), tmp_path / "predictions.csv")
    (tmp_path / "config.json").write_text('{"conclusion": "It names them all."}')
    page = report([str(tmp_path), str(heard / "two.csv")])
    assert page.count("It names them all.") == 1


def test_without_audio_the_page_says_how_to_get_it(heard):
    page = report([str(heard / "two.csv")])
    assert "<code>--audio-root FOLDER</code>" in page
    assert "<code>--table TABLE</code>" in page
    assert "<audio" not in page
    with_table = report([str(heard / "two.csv")], table=heard / "table.csv")
    assert "<code>--table TABLE</code>" not in with_table


def test_a_recording_that_is_missing_is_a_note_and_no_failure(heard, tmp_path):
    page = report([str(heard / "two.csv")], table=heard / "table.csv", audio_root=tmp_path)
    assert "0.wav: the file is missing or cannot be decoded" in page
    assert "<audio" not in page


def test_the_split_and_its_leaks_are_told(heard, page):
    assert "Nothing beside the table tells how it was split." in page
    assert "of a training segment of the same speaker" in page
    bare = report([str(heard / "two.csv")])
    assert "to see how it was split and what leaks" in bare


def test_as_many_errors_as_asked_are_shown(heard):
    assert report([str(heard / "one")], errors=2).count('<li class="card"') == 2
    assert "None were asked for." in report([str(heard / "one")], errors=0)


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
    words = ["report", f"frozen={heard / 'one'}", "-o", str(out), "--title", "A & B"]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert done.output == f"wrote {out}: 1 runs, {out.stat().st_size / 1e6:.1f} MB\n"
    assert "<title>A &amp; B</title>" in out.read_text()


def test_the_command_tells_what_to_repair_in_one_line(tmp_path):
    done = CliRunner().invoke(main, ["report", str(tmp_path), "-o", str(tmp_path / "x.html")])
    assert done.exit_code == 1
    assert "no predictions.csv" in done.stderr
    assert not (tmp_path / "x.html").exists()
