"""An audit finds planted errors, names who fits, and says what it cannot say."""

import json
from dataclasses import replace

import numpy as np
import pytest

from spk import classify
from spk.classify.auditing.findings import COLUMNS
from spk.classify.auditing.options import AuditOptions
from spk.classify.auditing.run import run_audit
from spk.classify.auditing.trial import Trial
from spk.classify.auditing.wording import facts
from spk.common.errors import InputError


def audited(table, store, learnt, **options):
    return run_audit(table, store, AuditOptions(**{**learnt, **options}))


@pytest.fixture(scope="module")
def turns(swapped, store, learnt):
    return classify.audit(swapped[0], store, log=lambda line: None, **learnt)


def test_planted_errors_are_ranked_first_and_named_rightly(turns, swapped):
    truth = swapped[1]
    first = turns.head(len(truth))
    assert first["segment_id"].isin([*truth]).sum() >= len(truth) - 1
    proposed = turns[turns["proposed"]]
    assert {*proposed["kind"]} == {"swap"}
    assert len(proposed) >= 0.8 * len(truth)
    planted = proposed[proposed["segment_id"].isin([*truth])]
    assert len(planted) >= len(proposed) - 1
    assert planted["suggested"].tolist() == [truth[name] for name in planted["segment_id"]]


def test_every_turn_has_one_row_with_the_promised_columns(turns, table):
    assert list(turns.columns) == list(COLUMNS)
    assert sorted(turns["segment_id"]) == sorted(table["segment_id"])
    assert turns["rank"].tolist() == list(range(1, len(turns) + 1))
    assert (turns["quality"].diff().dropna() >= 0).all()


def test_probabilities_of_a_turn_are_those_of_its_candidates_and_sum_to_1(turns):
    for row in turns.head(20).to_dict("records"):
        scores = json.loads(row["scores"])
        assert abs(sum(scores.values()) - 1) < 1e-4
        assert abs(scores[row["suggested"]] - row["probability"]) < 1e-5
        assert abs(scores[row["labelled"]] - row["labelled_probability"]) < 1e-5


def test_the_split_and_the_order_of_rows_change_nothing(turns, swapped, store, learnt):
    other = swapped[0].sample(frac=1, random_state=1).drop(columns="split").reset_index(drop=True)
    again = classify.audit(other, store, log=lambda line: None, **learnt)
    mine = turns.set_index("segment_id")
    again = again.set_index("segment_id").loc[mine.index]
    assert np.allclose(again["quality"], mine["quality"], atol=1e-6)
    assert again["suggested"].equals(mine["suggested"])


def test_a_turn_is_judged_by_nothing_near_it(table, store, learnt):
    """Within the gap everything is a neighbour, so that nobody is learnt and it is refused."""
    with pytest.raises(InputError, match="can be folded"):
        audited(table, store, learnt, gap=1e6)


def test_clean_labels_raise_few_alarms(table, store, learnt):
    assert audited(table, store, learnt).turns["proposed"].sum() <= 2


def test_features_that_tell_nothing_propose_nothing_and_say_so(
    table, features, write_store, tmp_path, swap, learnt
):
    noise = np.random.default_rng(0).normal(size=features.shape).astype(np.float32)
    store = write_store(tmp_path / "noise", table["segment_id"], noise)
    done = audited(swap(table)[0], store, learnt)
    assert not done.trial.carries
    assert not done.turns["proposed"].any()
    assert any("cannot carry an audit" in line for line in facts(done))


def test_what_was_not_looked_for_is_told(table, store, learnt):
    lines = "\n".join(facts(audited(table, store, learnt)))
    assert "not looked for: turns of two voices; pass --audio-root" in lines
    assert "exchanged throughout" not in lines  # the series relates two of the sessions
    alone = table[table["session"] == table["session"].iloc[-1]].reset_index(drop=True)
    assert "exchanged throughout" in "\n".join(facts(audited(alone, store, learnt)))


def test_labels_that_are_persons_relate_their_sessions(table, store, learnt, tmp_path):
    """As in a table made with ``--identity``: the same label in two sessions is one person."""
    named = table.assign(speaker=table["speaker"].str[-5:])
    rows = named[["session", "speaker"]].drop_duplicates()
    rows.assign(person=rows["speaker"]).to_csv(tmp_path / "people.csv", index=False)
    done = audited(named, store, learnt, identity=str(tmp_path / "people.csv"))
    assert done.related
    assert not any(line.startswith("not looked for: labels") for line in facts(done))


@pytest.mark.parametrize(
    ("right", "planted", "said"),
    [(1, 3, "too few to be sure"), (10, 60, "cannot carry an audit")],
)
def test_a_trial_of_few_turns_does_not_condemn_an_encoder(
    table, store, learnt, right, planted, said
):
    done = replace(audited(table, store, learnt), trial=Trial(planted, right, right))
    (line,) = [line for line in facts(done) if line.startswith("trial:")]
    assert said in line
    assert f"{planted} errors planted in unsuspected turns of 1 s and more" in line
    assert ("cannot carry an audit" in line) == (said == "cannot carry an audit")


def test_turns_without_features_or_company_are_listed_with_the_reason(
    table, features, write_store, tmp_path, learnt
):
    one = table.iloc[[0]].assign(
        segment_id="only", speaker="S_only", start=500.0, end=501.5, session=table["session"][0]
    )
    rejected, rest = table["segment_id"][5], table.drop(index=5)
    both = rest[["segment_id"]].assign(row=rest.index)
    store = write_store(
        tmp_path / "store",
        [*both["segment_id"], "only"],
        np.concatenate([features[both["row"]], features[:1]]),
        rejected=[rejected],
    )
    import pandas as pd

    done = audited(pd.concat([table, one], ignore_index=True), store, learnt)
    reasons = done.left_out.set_index("segment_id")["reason"]
    assert reasons[rejected] == "rejected at extraction"
    assert "no other turn" in reasons["only"]
    assert len(reasons) == 2
    assert not done.turns.set_index("segment_id").loc[reasons.index, "proposed"].any()


def test_a_session_of_one_speaker_is_left_out_by_name(table, store, learnt):
    first = table["session"].iloc[0]
    lonely = (table["session"] != first) | table["speaker"].str.endswith("001-M")
    done = audited(table[lonely].reset_index(drop=True), store, learnt)
    assert {*done.left_out["session"]} == {first}
    assert done.left_out["reason"].str.contains("fewer than two").all()


def test_short_turns_are_ranked_and_not_proposed(swapped, store, learnt):
    done = audited(swapped[0], store, learnt, min_seconds=2.0)
    assert not done.turns["proposed"].any()
    assert done.turns["issue"].any()


def test_a_run_of_another_encoder_is_refused(table, store, learnt, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    settings = {"within": "session", "layers": "all", "combine": "alone", "pooling_part": "both"}
    chosen = {"classifier": "ridge", "penalty": 10.0, "layers": [1], "combine": "alone"}
    config = {"settings": settings, "chosen": {**chosen, "temperature": 1.0}, "store": {}}
    config["store"] = {**store.config}
    (run / "config.json").write_text(json.dumps(config))
    done = audited(table, store, learnt, run=str(run))
    assert done.learner.name == "ridge, layer 1"
    config["store"]["weights_sha256"] = "c" * 64
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="configuration is another"):
        audited(table, store, learnt, run=str(run))
