"""Every command's options carry the names and defaults of the function that it calls."""

import dataclasses
import inspect

import click
import pytest
from click.testing import CliRunner

from spk.classify.cli import main as classify
from spk.classify.evaluation.compare import compare
from spk.classify.evaluation.learning_curve import learning_curve
from spk.classify.evaluation.open_set import open_set
from spk.classify.evaluation.score import score
from spk.classify.report.page import report
from spk.classify.selection.candidates import SweepSettings
from spk.classify.speaker_model import predict
from spk.extract.cli import main as extract
from spk.extract.options import ExtractOptions
from spk.finetune.cli import main as finetune
from spk.finetune.config import Config, read_config
from spk.finetune.predict import embed
from spk.finetune.predict import predict as name_speakers
from spk.manifests.cli import main as manifests
from spk.manifests.cutting.cut import cut_segments
from spk.manifests.cutting.rename import match_csv
from spk.manifests.demo.corpus import demo
from spk.manifests.formats.build import make_table
from spk.manifests.formats.thesis_csv import read_reference_csv
from spk.manifests.splits.select import select_segments
from spk.manifests.splits.split import METHODS

CUT_SOURCE = {"rttm_dir", "pcm_dir", "output_dir", "min_seconds", "listing_only", "audio_root"}
CUT_SOURCE |= {"allow_unpaired", "skip_bad"}
# Settings of training that naming may change: keyword arguments without a name in the signature.
OF_TRAINING = {"accelerator", "batch_seconds", "channel", "resample"}
CALLS = [
    (manifests.commands["rttm"], make_table, set()),
    (manifests.commands["textgrid"], make_table, {"tiers", "silence"}),
    (manifests.commands["csv"], read_reference_csv, set()),
    (manifests.commands["select"], select_segments, set()),
    (manifests.commands["cut"], cut_segments, CUT_SOURCE),
    (manifests.commands["match-csv"], match_csv, {"segments_dir", "csv_path", "out"}),
    (manifests.commands["demo"], demo, set()),
    (extract, ExtractOptions, {"plan"}),
    (classify.commands["sweep"], SweepSettings, {"identity"}),
    (classify.commands["fit"], SweepSettings, set()),
    (classify.commands["predict"], predict, set()),
    (classify.commands["score"], score, {"table", "output", "identity"}),
    (classify.commands["curve"], learning_curve, set()),
    (classify.commands["open-set"], open_set, set()),
    (classify.commands["report"], report, {"output"}),
    (classify.commands["compare"], compare, {"output"}),
    (finetune.commands["predict"], name_speakers, OF_TRAINING),
]
SETTINGS = dataclasses.fields(Config)
FIT = {option.name: option for option in finetune.commands["fit"].params}


OF_EVERY_COMMAND = {"overwrite", "no_lock"}  # common/commands.py
ONLY_IN_PYTHON = {"lock", "before", "log", "tell"}


def defaults_of(function):
    """Return {name: default} of the keyword arguments (of a dataclass: the fields)."""
    if dataclasses.is_dataclass(function):
        return {field.name: field.default for field in dataclasses.fields(function)}
    found = inspect.signature(function).parameters.values()
    named = [p for p in found if p.kind is p.KEYWORD_ONLY and p.name not in ONLY_IN_PYTHON]
    return {p.name: p.default for p in named}


def options_of(command):
    """Return {name: value} as a body sees them when no more than needed is typed."""
    words = ["word"] * sum(isinstance(p, click.Argument) for p in command.params)
    options = [o for o in command.params if isinstance(o, click.Option) and o.name != "version"]
    words += [word for o in options if o.required for word in (o.opts[0], "word")]
    values = command.make_context(command.name, words).params
    options = [o for o in options if o.name not in OF_EVERY_COMMAND]
    return {o.name: None if values[o.name] == () else values[o.name] for o in options}


@pytest.mark.parametrize(
    ("command", "function", "own"), CALLS, ids=lambda v: getattr(v, "name", "")
)
def test_options_are_the_functions_arguments_with_their_defaults(command, function, own):
    options = {name: value for name, value in options_of(command).items() if name not in own}
    assert options == defaults_of(function)


def test_split_offers_every_parameter_of_every_method_and_no_default_of_its_own():
    options = options_of(manifests.commands["split"])
    assert options.pop("method") == "chronological"
    known = {name for method in METHODS.values() for name in defaults_of(method)}
    assert set(options) == known
    assert set(options.values()) == {None}


def test_split_names_the_methods_there_are():
    (method,) = [o for o in manifests.commands["split"].params if o.name == "method"]
    assert set(method.type.choices) == set(METHODS)


def test_fit_offers_every_setting_and_leaves_what_is_not_typed_to_the_file():
    options = options_of(finetune.commands["fit"])
    assert set(options) == {"config"} | {known.name for known in SETTINGS}
    assert set(options.values()) == {None}


@pytest.mark.parametrize("known", SETTINGS, ids=lambda known: known.name)
def test_fit_tells_a_settings_meaning_and_default(known):
    said = {None: "none", "": "none", (): "all", True: "yes", False: "no"}
    # 1 equals True, and 0 False
    default = str(known.default) if type(known.default) in (int, float) else known.default
    told = f"{known.metadata['help']}  [{said.get(default, default)}]"
    assert FIT[known.name].help == told


@pytest.mark.parametrize(
    "known", [known for known in SETTINGS if known.metadata["choices"]], ids=lambda k: k.name
)
def test_fit_shows_a_settings_choices_and_refuses_others(known):
    choices = known.metadata["choices"]
    assert FIT[known.name].metavar.split("|") == list(choices)
    option = FIT[known.name].opts[0]
    done = CliRunner().invoke(finetune, ["fit", "table.csv", option, "another"])
    assert (done.exit_code, done.exception.__class__) == (1, SystemExit)
    assert f"{option}: value is 'another', expected one of {list(choices)}" in done.output


def words_of(option, value):
    """Return what is typed for an option to have a value."""
    if option.is_flag:
        return (option.opts if value else option.secondary_opts)[:1]
    return [option.opts[0], "true" if value is True else str(value)]


def test_fit_takes_each_default_as_it_is_typed():
    kept = {known.name: known.default for known in SETTINGS if known.default not in (None, (), "")}
    words = [word for name, value in kept.items() for word in words_of(FIT[name], value)]
    values = finetune.commands["fit"].make_context("fit", words).params
    values = {name: values[name] for name in values.keys() - OF_EVERY_COMMAND}
    typed = {name: value for name, value in values.items() if value not in (None, ())}
    assert set(typed) == set(kept)
    assert read_config(None, typed) == Config()


def test_embed_takes_options_of_extraction_and_the_encoders_place():
    options = options_of(finetune.commands["embed"])
    assert options.pop("encoder") is defaults_of(embed)["encoder"]
    assert [options.pop(name) for name in ("channel", "resample")] == [None, None]  # the training's
    assert options.items() <= defaults_of(ExtractOptions).items()
