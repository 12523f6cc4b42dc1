import sys

import pytest

from spk.common import extras
from spk.common.commands import Command
from spk.common.errors import InputError
from spk.common.extras import check_extra, explain_missing_module


def test_a_missing_extra_is_one_line_with_its_repair(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError) as problem:
        check_extra("extract", "spk-extract")
    assert str(problem.value) == (
        "spk-extract: torch is not installed, expected the extra 'extract'; "
        'run `pip install "spk-toolkit[extract]"`'
    )


def test_an_installed_extra_is_not_imported(monkeypatch):
    monkeypatch.setitem(extras.EXTRAS, "toy", ("this",))  # prints when it is imported
    check_extra("toy", "test")
    assert "this" not in sys.modules


def test_a_module_of_no_extra_is_our_own_fault():
    assert explain_missing_module(ModuleNotFoundError(name="spk.nothing"), "spk") is None


def test_a_command_tells_the_extra_of_any_import_that_fails(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lightgbm", None)

    def body() -> None:
        import lightgbm  # noqa: F401

    with pytest.raises(SystemExit) as ended:
        Command("spk-classify", callback=body).main([], prog_name="spk-classify")
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        "spk-classify: lightgbm is not installed, expected the extra 'trees'; "
        'run `pip install "spk-toolkit[trees]"`\n'
    )


def test_setup_brings_what_the_extras_need(setup_arguments):
    brought = setup_arguments["extras_require"]
    names = {"yaml": "pyyaml"}
    for extra, modules in extras.EXTRAS.items():
        packages = {requirement.split(">")[0] for requirement in brought[extra]}
        assert {names.get(module, module) for module in modules} <= packages, extra
        assert extra == "ray" or set(brought[extra]) <= set(brought["all"])  # 70 MB for clusters
    alone = {requirement.split(">")[0] for requirement in setup_arguments["install_requires"]}
    assert alone.isdisjoint({"torch", "torchaudio", "transformers", "lightning", "lightgbm"})
