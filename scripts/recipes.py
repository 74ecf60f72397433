"""What a family needs beyond shrinking: settings without a usable default, inputs it insists on."""

from __future__ import annotations

from typing import Any

import torch

_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 4]}
_INDEXER = {"n_heads": 2, "kv_heads": 1, "head_dim": 16, "budget": 8, "compress_ratio": 4}

# Settings by dotted path. A path that begins with text_config is also for the language model alone.
SETTINGS: dict[str, dict[str, Any]] = {
    "blip-2": {"image_token_index": 300},
    "chameleon": {"vocabulary_map": {"<image>": 9, "IMGIMGBAZ": 10}},
    "cohere_compass": {
        "text_config.rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE}
    },
    "deepseek_ocr2": {
        "text_config.mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
        "text_config.num_experts_per_tok": 2,
        "text_config.n_group": 1,
        "text_config.topk_group": 1,
        "text_config.head_dim": 16,
    },
    "diffusion_gemma": {
        "text_config.num_experts": 4,
        "text_config.top_k_experts": 2,
        "text_config.moe_intermediate_size": 32,
    },
    "dots3_note": {"vision_config.adapter_input_size": 64},
    "emu3": {
        "vocabulary_map": {"<image>": 9, "<|extra_200|>": 11, "<|visual token 000000|>": 12},
        "text_config.vocab_size": 640,
    },
    "granite4_vision": {"deepstack_layer_map": [[-1, 0]], "downsample_rate": "1/2"},
    "hunyuan_vl": {"text_config.head_dim": 16},
    "instructblip": {"image_token_index": 300},
    "instructblipvideo": {"video_token_index": 300},
    "kimi_k25": {"text_config.head_dim": 8},
    "nemotron_h_omni": {"text_config.n_groups": 2, "n_groups": 2},
    "qwen2_5_omni_thinker": {"vision_start_token_id": 5},
    "qwen3_omni_moe_thinker": {"vision_start_token_id": 5},
    "qwen4_exp": {f"text_config.indexer_{name}": value for name, value in _INDEXER.items()},
    "step3p7": {"text_config.sliding_window": 16},
}


def amend(model_type: str, settings: dict[str, Any], text: bool = False) -> dict[str, Any]:
    """Return settings with the family's own ones put in; `text` for those of the language model."""
    for path, value in SETTINGS.get(model_type, {}).items():
        if text:
            if path.startswith("text_config."):
                settings[path.removeprefix("text_config.")] = value
            continue
        *parents, name = path.split(".")
        place = settings
        for parent in parents:
            if not isinstance(place.get(parent), dict):
                place[parent] = {}
            place = place[parent]
        place[name] = value
    return settings


def extras(ids: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    """Return what may have to come beside a text prompt, the least first."""
    batch, length = ids.shape
    zeros = torch.zeros_like(ids)
    picture = torch.linspace(-1, 1, batch * 3 * 32 * 32).view(batch, 3, 32, 32)
    place = zeros.clone()
    place[:, 6:10] = 1
    pictured = ids.clone()
    pictured[:, 6:10] = 300
    asked = {"input_ids": pictured, "qformer_input_ids": ids[:, 10:], "pixel_values": picture}
    asked["qformer_attention_mask"] = torch.ones_like(ids[:, 10:])
    frames = ids.clone()
    frames[:, 6:22] = 300
    return [
        {},
        {"mm_token_type_ids": zeros},
        {"token_type_ids": zeros},
        {"pixel_values": picture},
        {"pixel_values": picture, "image_embeds_position_mask": place},
        {"pixel_values": picture, "input_ids": pictured},
        asked,
        {**asked, "input_ids": frames, "pixel_values": picture[:, None].expand(-1, 4, -1, -1, -1)},
        {
            "pixel_values": picture[:, None],
            "image_attention_mask": torch.ones(batch, length, 1, dtype=torch.long),
        },
        {
            "protein_input_ids": torch.full((batch, 7), 5),
            "protein_attention_mask": torch.ones(batch, 7, dtype=torch.long),
        },
    ]
