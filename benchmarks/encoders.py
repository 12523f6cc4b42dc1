"""Small random encoders of the two shapes that matter: what a benchmark runs without a hub.

``layer`` is a small copy of the default's shape (layer norm in the front end, stable layer norm in
the transformer, normalised waveforms); ``group`` one of wav2vec2-base's (group norm over time).
"""

import argparse
from importlib.util import find_spec
from pathlib import Path

from spk.extract.encoder.torchaudio_import import import_torchaudio

SHAPE = {
    "hidden_size": 128,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "conv_dim": (128,) * 7,
    "num_conv_pos_embeddings": 64,
    "num_conv_pos_embedding_groups": 8,
    "vocab_size": 8,
}
KINDS = {
    "layer": {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True},
    "group": {"feat_extract_norm": "group"},
}


def write_encoder(folder: Path, kind: str, seed: int = 0, **shape: object) -> Path:
    """Write a random encoder of `kind` (``layer`` or ``group``) as transformers saves one."""
    import torch

    if find_spec("torchaudio"):
        import_torchaudio()  # where it does not fit torch, transformers alone cannot import it
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(seed)
    config = Wav2Vec2Config(**{**SHAPE, **KINDS[kind], **shape})
    Wav2Vec2Model(config).eval().save_pretrained(folder)
    normalize = kind == "layer"
    Wav2Vec2FeatureExtractor(
        do_normalize=normalize, return_attention_mask=normalize
    ).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write one random encoder of each kind.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for name in KINDS:
        print(write_encoder(folder / name, name))
