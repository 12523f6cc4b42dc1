"""Extract features of new speech as those of the voices were, and cache them.

A folder has a separate store for each way of extraction, so that another layer, channel or encoder
never conflicts with what is there.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...common.extras import check_extra
from ...extract.options import ExtractOptions, parse_layers
from ...extract.run import configuration, run_extraction
from ...extract.store.reader import FeatureStore
from ...manifests.table import check_table
from .enrolment import Log
from .voices import Voices, check_same_encoder

if TYPE_CHECKING:
    import pandas as pd

    from ...extract.encoder.encoder import Encoder

NORMALIZE = {"zero mean, unit variance per segment": "yes", "none": "no"}


def features_like(
    voices: Voices,
    table: pd.DataFrame,
    cache: str | Path,
    *,
    encoder: str | None = None,
    log: Log,
    **settings: Any,
) -> FeatureStore:
    """Return a store with features of a table's segments at the voices' layer.

    Cached features are not extracted again; if all are cached, no encoder is loaded.

    Parameters
    ----------
    encoder
        Current location of the voices' encoder; None: as recorded.
    settings
        `audio_root`, `channel`, `device`, as in `ExtractOptions`.

    Raises
    ------
    InputError
        The encoder is not the voices', or as for `run_extraction`.
    """
    table = check_table(table)
    options = ExtractOptions(**{**_options(voices, encoder), **settings})
    store = Path(cache, store_name(voices.fingerprint, options))
    opened = FeatureStore.open(store) if (store / "store.json").exists() else None
    if opened is None or {*table["segment_id"]} - _settled(opened):
        check_extra("extract", "spk-name")
        loaded = _encoder(voices, options)
        check_same_encoder(voices, _configuration(loaded, options), options.encoder)
        run_extraction(table, store, options, encoder=loaded, log=log)
        opened = FeatureStore.open(store)
    check_same_encoder(voices, opened.config, store)
    return opened


def store_name(of: str, options: ExtractOptions) -> str:
    """Return the name of the store for features extracted with these options.

    `of` is the fingerprint of the voices that they are for, or "".
    """
    facts = (of, options.encoder, options.revision, options.layers, options.channel, options.device)
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]


def recording_hash(path: str | Path) -> str:
    """Return 16 hexadecimal digits of a file's SHA-256, which identify it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _options(voices: Voices, encoder: str | None) -> dict[str, Any]:
    config = voices.config
    name = str(encoder or config["encoder"])
    of_the_hub = encoder is None and "/" in name and not Path(name).exists()
    return {
        "encoder": name,
        "revision": config["revision"] if of_the_hub else None,
        "pooling": config["pooling"],
        "layers": str(voices.layer),
        "max_seconds": config["max_seconds"],
        "store_dtype": config["dtype"],
        "channel": config["channel"],
        "resample": True,
    }


def _encoder(voices: Voices, options: ExtractOptions) -> Encoder:
    """Load the encoder, normalising waveforms as for the voices."""
    from ...extract.encoder.encoder import load_encoder

    where: dict[str, Any] = {
        "revision": options.revision,
        "device": options.device,
        "dtype": options.dtype,
    }
    encoder = load_encoder(options.encoder, **where)
    then, now = voices.config["normalization"], encoder.provenance()
    is_theirs = now["weights_sha256"] == voices.config["weights_sha256"]
    if is_theirs and now["normalization"] != then and then in NORMALIZE:
        return load_encoder(options.encoder, normalize=NORMALIZE[then], **where)
    return encoder


def _configuration(encoder: Encoder, options: ExtractOptions) -> dict[str, Any]:
    """Return the configuration of a store of the encoder, with the layer if the encoder has it."""
    layers = parse_layers("all", encoder.layer_count)
    return configuration(encoder, layers, replace(options, layers="all"))


def _settled(store: FeatureStore) -> set[str]:
    """Return the ids of the segments that have features in a store or were rejected."""
    return {*map(str, store.ids()), *(row["segment_id"] for row in store.rejected())}
