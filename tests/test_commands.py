"""Each command's options are the fields of its settings, and the arguments of what it calls."""

import dataclasses
import inspect
import typing
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from spk.__main__ import main as spk
from spk.classify import options as classify_options
from spk.classify.auditing.options import AuditOptions
from spk.classify.cli import main as classify
from spk.classify.evaluation.compare import compare
from spk.classify.evaluation.learning_curve import learning_curve
from spk.classify.evaluation.open_set import open_set
from spk.classify.evaluation.score import score
from spk.classify.naming import options as naming_options
from spk.classify.naming.cli import main as naming
from spk.classify.naming.enrolment import enrol
from spk.classify.report.page import report
from spk.classify.speaker_model import predict
from spk.common.errors import InputError
from spk.common.options import DEFAULT_SEED
from spk.extract.cli import main as extract
from spk.extract.options import ExtractOptions
from spk.extract.store.cli import store
from spk.finetune import options as finetune_options
from spk.finetune.cli import main as finetune
from spk.finetune.config import FinetuneConfig, read_config
from spk.finetune.prediction import embed
from spk.finetune.prediction import predict as name_speakers
from spk.info import info
from spk.manifests import options as manifests_options
from spk.manifests.cli import main as manifests
from spk.manifests.cutting.cut import cut_segments
from spk.manifests.demo.corpus import demo
from spk.manifests.formats.build import make_table
from spk.manifests.formats.export import export_table
from spk.manifests.formats.registry import FORMATS
from spk.manifests.formats.subtitles import FORMS
from spk.manifests.formats.thesis_csv import read_reference_csv
from spk.manifests.splits.select import select_segments
from spk.manifests.splits.split import METHODS

ROOT = Path(__file__).resolve().parents[1]
OF_EVERY_COMMAND = {"overwrite", "no_lock", "quiet", "verbose"}  # common/commands.py
ONLY_IN_PYTHON = {"lock", "before", "log", "tell", "notes", "dropped"}
SPLIT = manifests_options.SplitOptions
PLAIN, CUES = ("whisperx", "lhotse", "nemo", "kaldi", "turns"), ("srt", "vtt", "txt")
# command -> its settings, and the options of its own: files, and what is done instead
DECLARED = [
    (manifests.commands["rttm"], [manifests_options.TableOptions], set()),
    (manifests.commands["textgrid"], [manifests_options.TextGridOptions], set()),
    *((manifests.commands[name], [manifests_options.TableOptions], set()) for name in PLAIN),
    *((manifests.commands[name], [manifests_options.CueOptions], set()) for name in CUES),
    (manifests.commands["eaf"], [manifests_options.EafOptions], set()),
    (manifests.commands["csv"], [manifests_options.CsvOptions], set()),
    (manifests.commands["export"], [manifests_options.ExportOptions], set()),
    (manifests.commands["select"], [manifests_options.SelectOptions], set()),
    (manifests.commands["split"], [SPLIT], {"times"}),
    (
        manifests.commands["cut"],
        [manifests_options.CutSource, manifests_options.CutOptions],
        {"listing_only"},
    ),
    (manifests.commands["match-csv"], [], {"segments_dir", "csv_path", "dry_run", "output"}),
    (manifests.commands["correct"], [], {"output"}),
    (manifests.commands["leaks"], [], {"output", "times"}),
    (manifests.commands["describe"], [], {"output"}),
    (manifests.commands["demo"], [manifests_options.DemoOptions], set()),
    (manifests.commands["sample"], [], set()),
    (extract, [ExtractOptions], {"plan"}),
    (store.commands["info"], [], set()),
    (store.commands["verify"], [], {"table", "audio_root"}),
    (store.commands["merge"], [], set()),
    (store.commands["pack"], [], set()),
    (store.commands["export"], [], {"table"}),
    (store.commands["import"], [], {"name", "weights", "partial"}),
    (classify.commands["audit"], [AuditOptions], set()),
    (classify.commands["sweep"], [classify_options.SweepSettings], {"identity"}),
    (classify.commands["fit"], [classify_options.SweepSettings], {"clips", "encoder"}),
    (classify.commands["predict"], [classify_options.PredictOptions], set()),
    (
        classify.commands["score"],
        [classify_options.ScoreOptions],
        {"table", "output", "identity"},
    ),
    (classify.commands["compare"], [classify_options.CompareOptions], {"output"}),
    (classify.commands["curve"], [classify_options.CurveOptions], set()),
    (classify.commands["open-set"], [classify_options.OpenSetOptions], set()),
    (classify.commands["report"], [classify_options.ReportOptions], {"output"}),
    (classify.commands["link"], [classify_options.LinkOptions], {"identity"}),
    (naming.commands["enrol"], [naming_options.EnrolOptions], {"clips", "identity"}),
    (
        naming.commands["apply"],
        [naming_options.NamingOptions, naming_options.OutputOptions],
        {"audio", "audio_root", "output"},
    ),
    (naming.commands["score"], [], {"uem", "output"}),
    (naming.commands["list"], [], set()),
    (naming.commands["remove"], [], set()),
    (finetune.commands["fit"], [FinetuneConfig], {"config", "log_every_n_steps"}),
    (finetune.commands["predict"], [finetune_options.PredictOptions], set()),
    (finetune.commands["embed"], [finetune_options.EmbedOptions], set()),
    (info, [], {"as_json"}),
]
# settings -> the function that takes them one by one
CALLS = [
    (manifests_options.TableOptions, make_table, set()),
    (manifests_options.CsvOptions, read_reference_csv, set()),
    (manifests_options.ExportOptions, export_table, set()),
    (manifests_options.SelectOptions, select_segments, {"sessions"}),
    (manifests_options.CutOptions, cut_segments, set()),
    (manifests_options.DemoOptions, demo, set()),
    # whose threshold `measured_threshold` reads in Python
    (classify_options.PredictOptions, predict, {"run", "false_accepts"}),
    (classify_options.ScoreOptions, score, set()),
    (classify_options.CompareOptions, compare, set()),
    (classify_options.CurveOptions, learning_curve, set()),
    (classify_options.OpenSetOptions, open_set, set()),
    (classify_options.ReportOptions, report, set()),
    (naming_options.EnrolOptions, enrol, {"encoder", "identity", "voices"}),
    # of the training, which naming may change: keyword arguments without a name in the signature
    (
        finetune_options.PredictOptions,
        name_speakers,
        {"batch_seconds", "channel", "resample"},
    ),
]
SETTINGS = dataclasses.fields(FinetuneConfig)
FIT = {option.name: option for option in finetune.commands["fit"].params}
EVERY_OPTION = [
    (command, option)
    for command, _, _ in DECLARED
    for option in command.params
    if isinstance(option, click.Option) and option.name not in {*OF_EVERY_COMMAND, "version"}
]


def leaves(command):
    """Yield the commands that run, of a command and those below it."""
    below = command.commands.values() if isinstance(command, click.Group) else []
    yield from [leaf for inner in below for leaf in leaves(inner)] or [command]


def named(parameter):
    return getattr(parameter, "name", None) or getattr(parameter, "__name__", None)


def defaults_of(function):
    """Return {name: default} of a function's keyword arguments."""
    found = inspect.signature(function).parameters.values()
    named_only = [p for p in found if p.kind is p.KEYWORD_ONLY and p.name not in ONLY_IN_PYTHON]
    return {p.name: p.default for p in named_only}


def options_of(command):
    """Return {name: value} as a body sees them when no more than needed is typed."""
    words = ["word"] * sum(isinstance(p, click.Argument) for p in command.params)
    options = [o for o in command.params if isinstance(o, click.Option) and o.expose_value]
    words += [word for o in options if o.required for word in (o.opts[0], "word")]
    values = command.make_context(command.name, words).params
    return {o.name: values[o.name] for o in options if o.name not in OF_EVERY_COMMAND}


def test_every_command_is_declared_here():
    every = [manifests, extract, store, classify, naming, finetune, info]
    assert {id(leaf) for group in every for leaf in leaves(group)} == {
        id(command) for command, _, _ in DECLARED
    }


@pytest.mark.parametrize(("command", "settings", "own"), DECLARED, ids=named)
def test_options_are_the_fields_of_the_settings(command, settings, own):
    fields = {field.name: field for kind in settings for field in dataclasses.fields(kind)}
    options = {
        option.name: option
        for option in command.params
        if isinstance(option, click.Option) and option.name not in {*OF_EVERY_COMMAND, "version"}
    }
    assert [name for name in options if name not in own] == list(fields)
    assert own <= options.keys()
    for name, field in fields.items():
        assert options[name].opts[0] == "--" + name.replace("_", "-")
        assert options[name].help.partition("  [")[0] == field.metadata["help"]
        assert options[name].group == field.metadata["group"]


@pytest.mark.parametrize(("command", "settings", "own"), DECLARED, ids=named)
def test_defaults_are_those_of_the_fields_but_where_a_file_decides(command, settings, own):
    fields = {field.name: field.default for kind in settings for field in dataclasses.fields(kind)}
    values = {name: value for name, value in options_of(command).items() if name not in own}
    if settings == [FinetuneConfig]:
        fields = {name: () if default == () else None for name, default in fields.items()}
    assert values == fields


@pytest.mark.parametrize(("settings", "function", "own"), CALLS, ids=named)
def test_the_functions_arguments_have_the_names_and_defaults_of_the_fields(settings, function, own):
    fields = {field.name: field.default for field in dataclasses.fields(settings)}
    arguments = defaults_of(function)
    assert fields.keys() - own == arguments.keys() - own
    assert {n: v for n, v in fields.items() if n not in own} == {
        n: v for n, v in arguments.items() if n not in own
    }


@pytest.mark.parametrize(("command", "settings", "own"), DECLARED, ids=named)
def test_choices_are_real_and_are_completed(command, settings, own):
    for field in (field for kind in settings for field in dataclasses.fields(kind)):
        choices = list(field.metadata["choices"])
        if not choices:
            continue
        (option,) = (option for option in command.params if option.name == field.name)
        assert isinstance(option.type, click.Choice)
        assert [choice for choice in option.type.choices if choice != "none"] == [
            choice for choice in choices if choice != "none"
        ]
        completed = ShellComplete(command, {}, "tool", "_TOOL_COMPLETE").get_completions(
            [option.opts[0]], choices[0][:1]
        )
        assert choices[0] in [item.value for item in completed]


@pytest.mark.parametrize(
    ("command", "option"),
    EVERY_OPTION,
    ids=[f"{command.name}-{option.name}" for command, option in EVERY_OPTION],
)
def test_every_option_says_what_it_is(command, option):
    assert option.help or option.hidden


def test_the_seed_has_one_default():
    helps = [option.help for _, option in EVERY_OPTION if option.name == "seed"]
    assert len(helps) == 10
    assert {text.rpartition("  [")[2] for text in helps} == {f"{DEFAULT_SEED}]"}
    assert defaults_of(METHODS["random"])["seed"] == DEFAULT_SEED


# Words that mean one thing in every command that has them; these are not used for another.
WORDS = {
    "encoder": "--encoder",
    "audio_root": "--audio-root",
    "device": "--device",
    "dtype": "--dtype",
    "layers": "--layers",
    "jobs": "--jobs",
    "seed": "--seed",
    "output": "--output",
}
FORMER = {"pretrained_model", "precision", "num_workers", "out", "pcm_dir"}


def test_one_word_for_one_thing():
    names = {option.name for _, option in EVERY_OPTION}
    assert names >= WORDS.keys()
    assert not names & FORMER
    shown = {name for _, option in EVERY_OPTION for name in option.opts}
    assert not {name for name in shown if "_" in name}


# (command, spelling of before, the setting it stands for, value)
OLD_SPELLINGS = [
    (finetune.commands["fit"], "--pretrained-model", "encoder", "demo"),
    (finetune.commands["fit"], "--pretrained_model", "encoder", "demo"),
    (finetune.commands["fit"], "--precision", "dtype", "float32"),
    (finetune.commands["fit"], "--num-workers", "workers", "4"),
    (finetune.commands["fit"], "--num_workers", "workers", "4"),
    (finetune.commands["fit"], "--pooling_method", "pooling_method", "mean"),
    (finetune.commands["fit"], "--freeze_encoder_layers", "freeze_encoder_layers", "8"),
    (finetune.commands["fit"], "--csv_path", "csv_path", "data.csv"),
    (finetune.commands["fit"], "--log_dir", "log_dir", "logs"),
    (finetune.commands["predict"], "--accelerator", "device", "cpu"),
    (finetune.commands["embed"], "--precision", "dtype", "float32"),
    (extract, "--precision", "dtype", "float32"),
    (extract, "--num-workers", "workers", "4"),
    (extract, "--audio_root", "audio_root", "wav"),
    (store.commands["verify"], "--audio", "audio_root", "wav"),
    (manifests.commands["cut"], "--pcm-dir", "audio_root", "wav"),
    (manifests.commands["cut"], "--pcm_dir", "audio_root", "wav"),
    (manifests.commands["cut"], "--rttm_dir", "rttm_dir", "rttm"),
    (manifests.commands["cut"], "--output_dir", "output_dir", "out"),
    (manifests.commands["cut"], "--workers", "jobs", "2"),
    (manifests.commands["csv"], "--rttm_dir", "rttm_dir", "rttm"),
    (manifests.commands["match-csv"], "--out", "output", "names.csv"),
    (manifests.commands["leaks"], "--out", "output", "leaks.csv"),
    (manifests.commands["describe"], "--out", "output", "leaks.csv"),
]


@pytest.mark.parametrize(
    ("command", "spelling", "name", "value"),
    OLD_SPELLINGS,
    ids=[f"{command.name}{spelling}" for command, spelling, _, _ in OLD_SPELLINGS],
)
def test_each_spelling_of_before_still_works_and_is_not_shown(command, spelling, name, value):
    words = ["word"] * sum(isinstance(p, click.Argument) for p in command.params)
    required = [o for o in command.params if isinstance(o, click.Option) and o.required]
    words += [word for o in required for word in (o.opts[0], "word")]
    typed = command.make_context("tool", [*words, spelling, value]).params
    assert typed[name] == value
    text = command.get_help(click.Context(command, info_name="tool"))
    assert spelling not in text.split()


def test_the_references_names_of_match_csv_still_work():
    command = manifests.commands["match-csv"]
    words = ["--segments_dir", "files", "--csv_path", "data.csv"]
    typed = command.make_context("tool", words).params
    assert (typed["segments_dir"], typed["csv_path"]) == ("files", "data.csv")


def test_an_option_without_effect_is_taken_and_not_shown():
    fit = finetune.commands["fit"]
    for spelling in ("--log-every-n-steps", "--log_every_n_steps"):
        assert "log_every_n_steps" not in fit.make_context("fit", ["t.csv", spelling, "3"]).params
    assert "log-every" not in fit.get_help(click.Context(fit, info_name="fit"))


@pytest.mark.parametrize(
    ("line", "variable", "value", "told"),
    [
        ("extract t.csv store", "SPK_EXTRACT_DTYPE", "int4", "'int4' is not one of"),
        ("classify sweep t.csv s o", "SPK_CLASSIFY_SWEEP_FOLDS", "-1", "--folds: value is '-1'"),
        ("finetune fit t.csv", "SPK_FINETUNE_FIT_SEED", "x", "--seed: value is 'x'"),
        ("manifests demo out", "SPK_MANIFESTS_DEMO_SPEAKERS", "1", "--speakers: value is '1'"),
        ("store verify s", "SPK_STORE_VERIFY_TABLE", "nowhere.csv", "nowhere.csv: "),
    ],
)
def test_options_are_taken_from_the_environment(line, variable, value, told):
    program, *words = line.split()
    own = {"manifests": manifests, "extract": extract, "store": store}
    own |= {"classify": classify, "finetune": finetune}
    for command, typed in ((own[program], words), (spk, [program, *words])):
        done = CliRunner().invoke(command, typed, env={variable: value}, prog_name="spk")
        assert isinstance(done.exception, SystemExit)
        assert told in done.output


@pytest.mark.parametrize("overwrite", ["1", ""])
def test_nothing_is_replaced_because_of_the_environment(typed, tmp_path, monkeypatch, overwrite):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPK_MANIFESTS_DEMO_OVERWRITE", overwrite)
    assert typed("spk-manifests demo out --minutes 1 --sessions 1 --channels 1").exit_code == 0
    again = typed("spk-manifests demo out --minutes 1 --sessions 1 --channels 1 --seed 1")
    assert again.exit_code == 1
    assert "--overwrite" in again.output


def test_export_offers_every_format_and_cues_every_form():
    assert set(manifests_options.FORMATS) == set(FORMATS)
    assert list(manifests_options.CUE_FORMS) == ["any", *FORMS]


def test_split_offers_every_parameter_of_every_method():
    names = {name for method in METHODS.values() for name in defaults_of(method)}
    assert {field.name for field in dataclasses.fields(SPLIT)} == names | {"method"}


def test_split_tells_the_methods_there_are_and_their_defaults():
    fields = {field.name: field for field in dataclasses.fields(SPLIT)}
    assert set(fields["method"].metadata["choices"]) == set(METHODS)
    told = {name: field.metadata["default_text"] for name, field in fields.items()}
    for name, method in METHODS.items():
        for argument, default in defaults_of(method).items():
            if default is inspect.Parameter.empty:
                continue
            in_words = f"{default:g}" if isinstance(default, float) else str(default)
            assert in_words in told[argument].replace(";", " ").split(), (name, argument)


def test_sweep_tells_the_classifiers_there_are():
    from spk.classify.classifiers.registry import PENALTIES

    assert set(classify_options.CLASSIFIERS) == set(PENALTIES)


def test_choices_are_what_the_code_takes():
    from spk.classify.features import COMBINE, PARTS, SEARCHES
    from spk.extract.encoder.device import DTYPES
    from spk.extract.encoder.pooling import POOLINGS

    def choices(kind, name):
        (field,) = (field for field in dataclasses.fields(kind) if field.name == name)
        return set(field.metadata["choices"])

    sweep = classify_options.SweepSettings
    assert choices(sweep, "combine") == {*COMBINE, *SEARCHES}
    assert choices(sweep, "pooling_part") == set(PARTS)
    assert choices(ExtractOptions, "dtype") == set(DTYPES)
    assert choices(ExtractOptions, "pooling") == set(POOLINGS)


def test_settings_take_what_is_natural_in_python():
    made = ExtractOptions(layers=[4, 8], channel=1, normalize=True)
    assert (made.layers, made.channel, made.normalize) == ("4,8", "1", "yes")
    swept = classify_options.SweepSettings(classifiers=["ridge", "lda"], layers=4, standardise=True)
    assert (swept.classifiers, swept.layers, swept.standardise) == ("ridge,lda", "4", "yes")
    assert classify_options.CurveOptions(seconds=[1, 2.5]).seconds == "1,2.5"


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (ExtractOptions, "pooling", "median"),
        (classify_options.SweepSettings, "folds", -1),
        (classify_options.ScoreOptions, "resamples", 0),
        (manifests_options.SelectOptions, "max_overlap", 2),
        (finetune_options.PredictOptions, "batch_seconds", "soon"),
    ],
)
def test_python_refuses_what_the_command_line_refuses(kind, name, value):
    with pytest.raises(InputError, match=f"^--{name.replace('_', '-')}: value is {value!r}, expec"):
        kind(**{name: value})


@pytest.mark.parametrize("field", SETTINGS, ids=lambda field: field.name)
def test_fit_tells_a_settings_default(field):
    said = {None: "none", "": "none", (): "all", True: "yes", False: "no"}
    # 1 equals True, and 0 False
    default = str(field.default) if type(field.default) in (int, float) else field.default
    words = field.metadata["default_text"] or said.get(default, default)
    assert FIT[field.name].help.endswith(f"  [{words}]")


def test_fit_shows_its_options_under_headings():
    text = finetune.commands["fit"].get_help(click.Context(finetune.commands["fit"]))
    headings = {field.metadata["group"] for field in SETTINGS}
    assert len(headings) == 10
    for heading in headings:
        assert f"\n\n{heading}:\n  --" in text


def words_of(option, value):
    """Return what is typed for an option to have a value."""
    if option.is_flag:
        return (option.opts if value else option.secondary_opts)[:1]
    return [option.opts[0], "true" if value is True else str(value)]


def test_fit_takes_each_default_as_it_is_typed():
    kept = {f.name: f.default for f in SETTINGS if f.default not in (None, (), "")}
    words = [word for name, value in kept.items() for word in words_of(FIT[name], value)]
    values = finetune.commands["fit"].make_context("fit", words).params
    values = {name: values[name] for name in values.keys() - OF_EVERY_COMMAND}
    typed = {name: value for name, value in values.items() if value not in (None, ())}
    assert set(typed) == set(kept)
    assert read_config(None, typed) == FinetuneConfig()


def test_embed_takes_options_of_extraction():
    fields = {field.name: field for field in dataclasses.fields(finetune_options.EmbedOptions)}
    extraction = {field.name: field for field in dataclasses.fields(ExtractOptions)}
    assert fields.pop("encoder").default is defaults_of(embed)["encoder"]
    assert [fields.pop(name).default for name in ("channel", "resample")] == [None, None]
    for name, field in fields.items():
        assert (field.default, field.metadata["choices"]) == (
            extraction[name].default,
            extraction[name].metadata["choices"],
        )


def test_types_of_settings_are_simple():
    """What `options_of` makes an option of."""
    kinds = {kind for _, settings, _ in DECLARED for kind in settings}
    hints = {hint for kind in kinds for hint in typing.get_type_hints(kind).values()}
    plain = {bool, int, float, str, type(None)}
    assert {h for h in hints if not {*(typing.get_args(h) or (h,))} <= plain} == {tuple[str, ...]}
