"""Fixtures shared by several packages; nothing here uses the network."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run in parallel, on tiny models

import runpy
import shlex
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import setuptools
from click.testing import CliRunner, Result
from ray_cluster import ray_of_two_nodes, two  # noqa: F401

from spk.common.errors import InputError
from spk.extract.encoder.torchaudio_import import import_torchaudio

with suppress(InputError):
    import_torchaudio()  # otherwise `import transformers` fails with a torch without CUDA
ROOT = Path(__file__).resolve().parents[1]
ASKS = ("_local_scalar_dense", "aten.item", "aten.is_nonzero")  # operations that read one number
DATA = Path(os.environ.get("SPK_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real voices and annotations, or skip."""
    if not (DATA / "meetings").is_dir():
        pytest.skip(f"no real meetings at {DATA}; name their folder in SPK_DATA")
    return DATA


def _encoder(folder: Path, **changes: object) -> Path:
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    torch.manual_seed(7)
    config = Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        vocab_size=8,
        **changes,
    )
    Wav2Vec2Model(config).eval().save_pretrained(folder)
    normalize = bool(config.feat_extract_norm == "layer")
    Wav2Vec2FeatureExtractor(
        do_normalize=normalize, return_attention_mask=normalize
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def layer_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny random encoder of the default's shape: layer norm, stable layer norm."""
    folder = tmp_path_factory.mktemp("encoder-layer")
    return _encoder(folder, feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True)


@pytest.fixture(scope="session")
def group_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny random encoder of wav2vec2-base's shape: group norm over time."""
    return _encoder(tmp_path_factory.mktemp("encoder-group"), feat_extract_norm="group")


MEETING = "20990301_S_R001S01C01"  # the first of the demo corpus
EXPORTED = ("whisperx", "srt", "vtt", "txt", "eaf", "lhotse", "nemo", "kaldi", "csv")
MADE = (
    "spk-manifests demo corpus --sessions 2 --minutes 1 --speakers 3 --channels 1",
    "spk-manifests rttm corpus/TextGrid turns.csv --audio-root corpus/wav",
    "spk-manifests split turns.csv table.csv --gap 0.5",
    *(f"spk-manifests export turns.csv written/{name} --format {name}" for name in EXPORTED),
    "spk-extract table.csv store --audio-root corpus/wav --encoder demo",
    "spk-manifests cut table.csv segments --audio-root corpus/wav",
    "spk-store export store exported.npz",
    "spk-classify fit table.csv store model --classifiers ridge --layers 1",
    "spk-classify predict model table.csv store named.csv",
    "spk-classify sweep table.csv store sweep --classifiers ridge --layers 1",
    "spk-finetune fit table.csv --log-dir fleet --audio-root corpus/wav --encoder demo "
    f"--freeze-encoder-layers 4 --max-epochs 1 --sessions {MEETING}",
    "spk-name enrol team.voices table.csv store --layer 1",
    f"spk-name apply team.voices corpus/TextGrid/{MEETING}.rttm --audio-root corpus/wav "
    "--output names --threshold -1 --min-purity 0 --min-seconds 0",  # nothing is doubtful
)


def _typed(line: str) -> Result:
    """Run a command line in this process; a traceback is raised."""
    from spk.classify.cli import main as classify
    from spk.classify.naming.cli import main as naming
    from spk.extract.cli import main as extract
    from spk.extract.store.cli import store
    from spk.finetune.cli import main as finetune
    from spk.manifests.cli import main as manifests

    program, *words = shlex.split(line)
    rooms = {"manifests": manifests, "extract": extract, "store": store}
    rooms |= {"classify": classify, "name": naming, "finetune": finetune}
    done = CliRunner().invoke(rooms[program.removeprefix("spk-")], words)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def _write_correction(table: Path, out: Path) -> None:
    """Write a corrections file that gives the first turn to another speaker of its session."""
    rows = pd.read_csv(table)
    first = rows.iloc[0]
    there = rows.loc[rows["session"] == first["session"], "speaker"].unique()
    better = next(name for name in there if name != first["speaker"])
    text = f"{first['segment_id']},{first['session']},{first['speaker']},{better}\n"
    out.write_text(f"segment_id,session,labelled,suggested\n{text}")


@pytest.fixture
def typed() -> Callable[[str], Result]:
    """Return a function that runs a command line as a user would type it."""
    return _typed


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which all commands of `MADE` were run."""
    folder = tmp_path_factory.mktemp("made")
    before = Path.cwd()
    os.chdir(folder)
    try:
        for line in MADE:
            done = _typed(line)
            assert done.exit_code == 0, (line, done.output)
        _write_correction(Path("table.csv"), Path("corrections.csv"))
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def made(_made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of `_made`, which is the current folder."""
    folder = tmp_path / "made"
    shutil.copytree(_made, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def setup_arguments(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Return the arguments that setup.py passes to setuptools."""
    given: dict[str, object] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: given.update(arguments))
    runpy.run_path(str(ROOT / "setup.py"))
    return given


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> object:
    """Return the times that the host waited for a device; `meta` stands in for a GPU.

    Its tensors have shapes and formats but no numbers, so anything that needs one would wait: a
    number read, a copy back, an index by a mask, a copy from memory that a GPU cannot read itself.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from spk.extract.encoder import device, encoder, frontend

    seen: list[str] = []

    def type_of(value: object) -> str:
        return value.device.type if isinstance(value, torch.Tensor) else ""

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            kwargs, name = kwargs or {}, str(func)
            if name.startswith("aten.to."):  # in inference mode; calls `_to_copy`
                with self:
                    return func.decompose(*args, **kwargs)
            there = "meta" in map(type_of, args)
            if there and any(asks in name for asks in ASKS):
                seen.append(name)
                return False
            if there and "nonzero" in name:
                seen.append(name)
            if "_to_copy" in name and kwargs.get("device") is not None:
                to = torch.device(kwargs["device"]).type
                if there and to == "cpu":
                    seen.append("a copy back")
                    return torch.zeros(args[0].shape, dtype=args[0].dtype)
                if not there and to == "meta" and not kwargs.get("non_blocking"):
                    seen.append("a copy there")
            return func(*args, **kwargs)

    monkeypatch.setattr(encoder, "default_batch_seconds", lambda *_: 20.0)
    monkeypatch.setattr(frontend, "product_dtype", lambda states: states.dtype)  # no autocast there
    monkeypatch.setattr(  # as `DeviceTransfer` does on a GPU, from pinned memory
        device.DeviceTransfer,
        "to_device",
        lambda lane, batch: batch.to(lane.device, non_blocking=True),
    )
    with Watch():
        yield seen
