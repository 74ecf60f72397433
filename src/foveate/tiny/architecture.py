"""The embedded model: a stock Qwen3-VL with one visual token per 16 x 16 pixels."""

import copy
from typing import Any

import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from foveate.tiny.vocabulary import END, IMAGE, PAD, TOKENS, VIDEO, VISION_END, VISION_START

ROPE_THETA = 100.0
MROPE_SECTION = [6, 5, 5]


def config(layers: int = 6, hidden: int = 128) -> Qwen3VLConfig:
    """The configuration, rotary settings spelt the old and the new way for every release."""
    rope = {"rope_type": "default", "mrope_interleaved": True, "mrope_section": MROPE_SECTION}
    text = {
        "vocab_size": len(TOKENS),
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 32,
        "num_key_value_heads": hidden // 64,
        "head_dim": 32,
        "max_position_embeddings": 4096,
        "initializer_range": 0.05,
        "tie_word_embeddings": True,
        "pad_token_id": PAD,
        "eos_token_id": END,
        "rope_theta": ROPE_THETA,
        "rope_scaling": dict(rope),
        "rope_parameters": {**rope, "rope_theta": ROPE_THETA},
    }
    vision = {
        "depth": 2,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_heads": hidden // 32,
        "patch_size": 16,
        "spatial_merge_size": 1,
        "temporal_patch_size": 2,
        "out_hidden_size": hidden,
        "num_position_embeddings": 4,
        "deepstack_visual_indexes": [0],
        "initializer_range": 0.05,
    }
    return Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
        tie_word_embeddings=True,
    )


def build(layers: int = 6, hidden: int = 128) -> Qwen3VLForConditionalGeneration:
    """A model with fresh weights; its learned position grid stays zero, places are rotary."""
    model = Qwen3VLForConditionalGeneration(config(layers, hidden))
    table = model.model.visual.pos_embed.weight
    torch.nn.init.zeros_(table)
    table.requires_grad_(False)
    model.generation_config.pad_token_id = PAD
    model.generation_config.eos_token_id = END
    return model


def lower(master: Any, dtype: torch.dtype) -> Any:
    """A copy in another precision; rotary frequencies stay in float32."""
    worker = copy.deepcopy(master).to(dtype)
    for name, table in master.named_buffers():
        if name.endswith("inv_freq"):
            worker.get_submodule(name.rpartition(".")[0]).inv_freq = table.clone()
    return worker
