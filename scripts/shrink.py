"""Shrinks any Hugging Face config to a few small layers, by the names of its numbers."""

from __future__ import annotations

import re
from typing import Any

LAYERS, HIDDEN, HEADS, KV_HEADS, WIDTH, VOCAB = 4, 64, 4, 2, 16, 640
TOWER = 2  # layers of everything that is not the language model

# The first pattern that matches a name decides; a value of None leaves it.
NUMBERS: tuple[tuple[str, int | None], ...] = (
    (r"per_layer_input$", 8),
    (r"(num_nextn_predict_layers|num_mtp.*layers)$", 0),
    (r"num_kv_shared_layers$", 2),
    (r"first_k_dense_replace$", 1),
    (r"(vocab_size|vocab_size_per_layer_input|.*_vocab_size)$", VOCAB),
    (r"kv_lora_rank$", 16),
    (r"(q_lora_rank|o_lora_rank)$", 24),
    (r"(qk_rope_head_dim|qk_nope_head_dim)$", 8),
    (r"qk_head_dim$", 16),
    (r"(.*head_dim|v_head_dim|head_size|d_kv|attention_head_size|kv_channels)$", WIDTH),
    (r"(linear|mamba|ssm|conv|gdn).*(num_key_heads|num_k_heads)$", 2),
    (r"(linear|mamba|ssm|conv|gdn).*(heads)$", 4),
    (r"(.*key_value_heads|.*kv_heads|n_kv_heads|num_query_groups|.*_kv_head)$", KV_HEADS),
    (r"(.*attention_heads|.*num_heads|n_heads?|num_head|heads|.*index_n_heads)$", HEADS),
    (
        r"(num_experts_per_tok|experts_per_token|moe_topk|moe_k|top_k_experts|num_selected_experts)$",
        2,
    ),
    (r"(.*experts|moe_num_experts)$", 4),
    (r"(n_group|topk_group|n_shared_experts|moe_num_shared_experts)$", 1),
    (r"(moe|expert|shared).*(intermediate|ffn|hidden).*$", 32),
    (r".*(intermediate|ffn|mlp|feed_?forward|inner).*(size|dim)$", 96),
    (r"(d_ff|n_inner|intermediate_size|mlp_dim|projector_hidden_size)$", 96),
    (
        r"(num_query_tokens|num_queries|query_length|max_num_tiles|num_image_tokens|latent_query_num)$",
        4,
    ),
    (
        r"(num_hidden_layers|num_layers|n_layers?|n_layer|decoder_layers|num_decoder_layers)$",
        LAYERS,
    ),
    (r"(depth|encoder_layers|num_encoder_layers|vision_layers|.*_(layers|blocks|depth))$", TOWER),
    (r"(image_size|img_size|input_size|crop_size)$", 32),
    (r"(patch_size|image_patch_size)$", 8),
    (r"(num_position_embeddings|num_patches|position_embedding_size)$", 16),
    (r"(sliding_window|.*_window|window_size|attention_chunk_size|.*window)$", 16),
    (r"(max_position_embeddings|max_seq_len|n_positions|max_source_positions|seq_length)$", 256),
    (
        r".*(hidden_size|d_model|embed_dim|n_embd|embedding_size|embedding_dim|width|projection_dim)$",
        HIDDEN,
    ),
    (
        r".*(output_dim|out_dim|hidden_dim|model_dim|embed_size|projector_dim|out_hidden_size|dim)$",
        HIDDEN,
    ),
)
IDS = re.compile(r"(token_ids?|token_index|token_idx|_id|_ids|_token|_index)$")
PLACES = re.compile(r"(indexes|indices|attn_indexes|feature_layers?|cross_attention_layers)$")


SECTIONS = (None, [2, 2, 4], [1, 1, 2])  # M-RoPE of heads of 16, wholly or half rotated


def shrink(config: Any, sections: list[int] | None = None) -> dict[str, Any]:
    """Return the settings of a small config of the same kind, nested ones included.

    `sections` splits rotary frequencies among time, height and width where a model does that
    without saying so in its config.
    """
    small = _dict(config.to_dict(), "text", {})
    if sections:
        for part in (small, *(x for x in small.values() if isinstance(x, dict))):
            if "rope_parameters" in part and part.get("vocab_size"):
                part["rope_parameters"] = (
                    {"rope_type": "default", "rope_theta": 10000.0}
                    | {k: v for k, v in (part["rope_parameters"] or {}).items() if v is not None}
                    | {"mrope_section": sections}
                )
    return small


def _dict(settings: dict[str, Any], kind: str, ids: dict[int, int]) -> dict[str, Any]:
    """Return one level of settings, shrunken."""
    layers = (
        TOWER if re.search("vision|audio|vit|encoder|qformer|sam|tower|visual", kind) else LAYERS
    )
    before = next(
        (settings[k] for k in ("num_hidden_layers", "num_layers", "depth") if settings.get(k)), None
    )
    small: dict[str, Any] = {}
    for name, value in settings.items():
        if name == "per_layer_config":  # says what single layers do otherwise, by their number
            continue
        if not isinstance(name, str):
            small[name] = value
            continue
        if isinstance(value, dict):
            small[name] = _rope(value) if "rope" in name else _dict(value, name, ids)
        elif isinstance(value, bool) or value is None:
            small[name] = value
        elif isinstance(value, list | tuple):
            small[name] = _list(name, list(value), before, layers, ids)
        else:
            small[name] = _number(name, value, layers, ids)
    if small.get("kv_lora_rank"):  # latent attention has as many key heads as query heads
        small["num_key_value_heads"] = small["num_attention_heads"]
    return small


def _number(name: str, value: Any, layers: int, ids: dict[int, int]) -> Any:
    """Return one number, shrunken by its name; text, floats and small ids stay."""
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if IDS.search(name):
        return value if value < 300 else ids.setdefault(value, 500 + len(ids))
    for pattern, size in NUMBERS:
        if re.fullmatch(pattern, name) or re.search(f"^(?:{pattern})", name):
            if size is None or value <= 0:
                return value
            return layers if size == LAYERS and "layer" in name else size
    return value


def _list(
    name: str, value: list[Any], before: int | None, layers: int, ids: dict[int, int]
) -> list[Any]:
    """Return a list, cut to the layers that are left."""
    if name == "layer_types" or (
        before and len(value) == before and value and isinstance(value[0], str)
    ):
        return _kinds(value, layers)
    if PLACES.search(name):
        return [1] if value else value
    if "mrope" in name:
        return [2, 2, 4]
    if before and len(value) == before:
        return value[:layers]
    if IDS.search(name):
        return [_number(name, x, layers, ids) for x in value]
    if name in ("image_size", "patch_size", "window_size"):
        return [_number(name, x, layers, ids) for x in value]
    return value


def _kinds(kinds: list[str], layers: int) -> list[str]:
    """Return a short pattern with every kind of layer in it, ending like the original."""
    some = list(dict.fromkeys(kinds))
    if len(some) == 1:
        return some * layers
    full = next((kind for kind in some if kind == "full_attention"), some[-1])
    others = [kind for kind in some if kind != full]
    return [full if i % 2 else others[(i // 2) % len(others)] for i in range(layers)]


def _rope(value: dict[str, Any]) -> dict[str, Any]:
    """Return rotary settings for heads of 16."""
    small: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, dict):
            small[name] = _rope(item)
        elif "mrope_section" in name:
            small[name] = [2, 2, 4]
        elif isinstance(item, list) and len(item) > 8:  # long and short factors
            small[name] = item[: WIDTH // 2]
        else:
            small[name] = item
    return small
