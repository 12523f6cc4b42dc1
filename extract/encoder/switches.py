"""Known settings of an encoder's config.json, so that no new one goes unnoticed.

The encoder's layers run as transformers builds them, but we call them ourselves (`frontend`,
`transformer`, `encoder`). A setting added by a later transformers might change the order of
operations; if it is not at its default, the encoder is refused until the setting is supported.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from ...common.errors import InputError

# These affect the states; tests compare each with transformers' own states.
OF_STATES = frozenset(
    (
        *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
        *("hidden_act", "layer_norm_eps", "do_stable_layer_norm", "adapter_attn_dim"),
        *("feat_extract_norm", "feat_extract_activation", "feat_proj_layer_norm"),
        *("conv_dim", "conv_stride", "conv_kernel", "conv_bias", "num_feat_extract_layers"),
        *("num_conv_pos_embeddings", "num_conv_pos_embedding_groups", "conv_pos_kernel_size"),
        *("conv_pos_batch_norm", "num_buckets", "max_bucket_distance"),
        *("feature_projection_input_dim", "conv_depthwise_kernel_size"),
        *("left_max_position_embeddings", "right_max_position_embeddings"),
        "position_embeddings_type",  # one kind of which is supported (`preprocessing`)
    )
)
# These do not affect the states: they concern training, a head, or what follows the last layer.
OF_OTHERS = frozenset(
    (
        *("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout"),
        *("feat_quantizer_dropout", "final_dropout", "conformer_conv_dropout", "layerdrop"),
        *("initializer_range", "apply_spec_augment", "mask_time_prob", "mask_time_length"),
        *("mask_time_min_masks", "mask_feature_prob", "mask_feature_length"),
        *("mask_feature_min_masks", "replace_prob", "num_codevectors_per_group"),
        *("num_codevector_groups", "contrastive_logits_temperature", "num_negatives"),
        *("codevector_dim", "proj_codevector_dim", "diversity_loss_weight", "num_clusters"),
        *("ctc_loss_reduction", "ctc_zero_infinity", "num_ctc_classes", "vocab_size"),
        *("use_weighted_layer_sum", "classifier_proj_size", "tdnn_dim", "tdnn_kernel"),
        *("tdnn_dilation", "xvector_output_dim", "pad_token_id", "bos_token_id", "eos_token_id"),
        *("add_adapter", "adapter_kernel_size", "adapter_stride", "num_adapter_layers"),
        *("adapter_act", "output_hidden_size", "use_intermediate_ffn_before_adapter"),
        *("rotary_embedding_base", "max_source_positions"),  # of unsupported position embeddings
    )
)


def settings_of_kind(config_class: type) -> set[str]:
    """Return the settings that transformers' configuration class adds to the common ones."""
    base = next(c for c in config_class.__mro__ if c.__name__.lower() == "pretrainedconfig")
    own, common = (inspect.signature(c.__init__).parameters for c in (config_class, base))  # type: ignore[misc]
    return {name for name in own if name not in common and name not in ("args", "kwargs")}


def check_switches(path: Path, config_class: type, settings: dict[str, Any]) -> None:
    """Raise `InputError` if an unknown setting is not at its default.

    Parameters
    ----------
    path
        The config.json.
    config_class
        Its transformers configuration class.
    settings
        The file's content.
    """
    default = config_class()
    for name in sorted(settings_of_kind(config_class) - OF_STATES - OF_OTHERS):
        usual = getattr(default, name, None)
        if name in settings and settings[name] != usual:
            raise InputError(
                f"{path}: {name} is {settings[name]!r}, which this version of spk does not know "
                f"and which may change the features, expected {usual!r}; choose another encoder, "
                "or a version of spk that knows it"
            )
