"""A table of situations: what was typed, what is said, the repair typed next, and what follows."""

import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from spk.classify.cli import main
from spk.manifests.cli import main as manifests
from spk.manifests.table import read_table, write_table

pytestmark = pytest.mark.slow

FAST = "--classifiers ridge --layers 1 --jobs 1"
# what was typed; part of the message; the repair typed next; what follows of it, and its exit code
SITUATIONS = [
    (
        f"fit no_valid.csv store model {FAST}",
        "0 segments have split 'valid', expected at least 1 to choose by; pass --folds 5",
        f"fit no_valid.csv store model {FAST} --folds 5",
        "wrote model:",
        0,
    ),
    (
        "sweep no_valid.csv store out --classifiers ridge,lightgbm --layers 1",
        "pass --folds 5 and leave lightgbm out of --classifiers",
        f"sweep no_valid.csv store out {FAST} --folds 5",
        "wrote out/sweep.csv",
        0,
    ),
    (
        f"fit table.csv store model {FAST} --calibration isotonic",
        "isotonic is gone: it made log-loss and calibration error worse); leave --calibration out",
        f"fit table.csv store model {FAST}",
        "wrote model:",
        0,
    ),
    (
        f"fit plain.csv store model {FAST}",
        "0 segments have split 'train', expected at least 1; make it again with spk-manifests "
        "split",
        "spk-manifests split plain.csv again.csv",
        "again.csv: chronological",
        0,
    ),
    (
        f"fit short.csv store model {FAST} --folds 5 --gap 60",
        "task can be folded",
        None,  # whatever options the message names
        "wrote model:",
        0,
    ),
    (
        "sweep table.csv store out --classifiers lightgbm --layers 1 --folds 3",
        "leave lightgbm out of --classifiers, or --folds out",
        f"sweep table.csv store out {FAST} --folds 3",
        "wrote out/sweep.csv",
        0,
    ),
    (
        "sweep guests.csv store out --classifiers lightgbm --layers 1",
        "which lightgbm needs for early stopping (12 valid)), expected at least 1; leave lightgbm "
        "out of",
        f"sweep guests.csv store out {FAST}",
        "12 of 12 segments have speakers that the model does not know",
        0,
    ),
    (
        f"sweep apart.csv store out {FAST}",
        "expected at least 1; pass --within corpus",
        f"sweep apart.csv store out {FAST} --within corpus",
        "wrote out/sweep.csv",
        0,
    ),
    (
        f"sweep alone.csv store out {FAST}",
        "use a table in which split train has segments of two speakers or more",
        f"sweep table.csv store out {FAST}",
        "wrote out/sweep.csv",
        0,
    ),
    (
        "predict first new.csv store p.csv --split all",
        "run spk-classify fit with --within corpus on the table of the known meetings",
        f"fit first.csv store everybody {FAST} --within corpus",
        "wrote everybody:",
        0,
    ),
    (
        "predict first new.csv store p.csv",
        "pass --split all, or run spk-manifests split",
        "predict everybody new.csv store p.csv --split all",
        "have speakers that the model does not know",
        0,
    ),
    (
        "curve other.csv store swept --seconds 2 --draws 1",
        "pass the table and the store that were swept",
        "curve table.csv store swept --seconds 2 --draws 1",
        "wrote swept/learning.csv",
        0,
    ),
    (
        "curve table.csv store stopped --seconds 2",
        "run the same spk-classify sweep again, which resumes it",
        f"sweep table.csv store stopped {FAST}",
        "1 of 1 combination was finished before, and not tried again",
        0,
    ),
    (
        "report stopped -o page.html",
        "run the same spk-classify sweep again, or name a predictions table",
        "report swept/predictions.csv -o page.html",
        "wrote page.html",
        0,
    ),
    (
        f"sweep other.csv store swept {FAST}",
        "pass --overwrite to restart it, or name another folder",
        f"sweep other.csv store another {FAST}",
        "wrote another/sweep.csv",
        0,
    ),
    (
        f"sweep other.csv store swept {FAST}",
        "pass --overwrite to restart it, or name another folder",
        f"sweep other.csv store swept {FAST} --overwrite",
        "wrote swept/sweep.csv",
        0,
    ),
    (
        "open-set pairs.csv store pairs",
        "or with --within corpus, into another folder",
        f"sweep pairs.csv store pairs2 {FAST} --within corpus",
        "wrote pairs2/sweep.csv",
        0,
    ),
    (
        "score swept/predictions.csv --split valid",
        "pass --split with one of ['test', 'all']",
        "score swept/predictions.csv --split all",
        "models scored: 1",
        0,
    ),
    (
        "score swept/predictions.csv --identity people.csv",
        "pass --table too",
        "score swept/predictions.csv --table table.csv",
        "models scored: 1",
        0,
    ),
    (
        "report swept swept/predictions.csv swept -o page.html",
        "pass NAME=PATH with other names",
        "report a=swept b=swept/predictions.csv c=swept -o page.html",
        "wrote page.html: 3 runs",
        0,
    ),
    (
        f"fit table.csv store first {FAST}",
        "expected no such folder; pass --overwrite or name another folder",
        f"fit table.csv store second {FAST}",
        "wrote second:",
        0,
    ),
    (
        "sweep table.csv store out --classifiers ridge --layers 7",
        "layers: 7 is not in the store, expected some of [0, 1, 2]",
        f"sweep table.csv store out {FAST}",
        "wrote out/sweep.csv",
        0,
    ),
]


def typed(text):
    command, words = (
        (manifests, text.split()[1:])
        if text.startswith("spk-manifests")
        else (
            main,
            text.split(),
        )
    )
    return CliRunner().invoke(command, words)


@pytest.fixture(scope="module")
def place(tmp_path_factory, table, features, write_store):
    """Return a folder with the tables, stores, models and runs that the situations name."""
    folder = tmp_path_factory.mktemp("repairs")
    split, session = table["split"], table["session"]
    first = session == session[0]
    one = table["speaker"].str.endswith("001-M")
    write_store(folder / "store", table["segment_id"], features)
    tables = {
        "table": table,
        "no_valid": table[split != "valid"],
        "plain": table.drop(columns="split"),
        "guests": table[first].assign(
            speaker=np.where(split[first] == "valid", "guest", table["speaker"][first])
        ),
        "apart": table[np.isin(session, sorted(set(session))[:2]) & (one | (split == ""))],
        "alone": table[first & one],
        "first": table[first],
        "new": table[~first].drop(columns="split"),
        "other": table.assign(split=split.replace({"train": "valid", "valid": "train"})),
        "pairs": table[~table["speaker"].str.endswith("003-M")],
        "short": table[first & (table["start"] < 16)],
    }
    for name, rows in tables.items():
        write_table(rows.reset_index(drop=True), folder / f"{name}.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for text in (
            f"fit first.csv store first {FAST}",
            f"fit first.csv store everybody {FAST} --within corpus",
            f"sweep table.csv store swept {FAST}",
            f"sweep table.csv store stopped {FAST}",
            f"sweep pairs.csv store pairs {FAST}",
        ):
            assert typed(text).exit_code == 0, text
    (folder / "stopped" / "config.json").unlink()  # written last
    return folder


@pytest.mark.parametrize("situation", SITUATIONS, ids=[each[0] for each in SITUATIONS])
def test_the_repair_that_a_message_names_leads_on(tmp_path, monkeypatch, place, situation):
    wrong, message, repair, follows, code = situation
    shutil.copytree(place, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    if repair is not None and " everybody " in repair and repair.startswith("fit"):
        shutil.rmtree("everybody")
    said = typed(wrong)
    assert said.exit_code == 1, said.output
    assert message in said.output
    if repair is None:
        options = said.output.rsplit("pass ", maxsplit=1)[1].split()
        repair = f"{wrong} {' '.join(options)}"
    done = typed(repair)
    assert done.exit_code == code, done.output
    assert follows in done.output
    if repair.startswith("spk-manifests"):
        assert set(read_table("again.csv")["split"]) >= {"train", "test"}
