"""Text-only models: plain, all-sliding (Mistral), latent (DeepSeek-V3) and hybrid (Qwen3.5)."""

from families.base import Family, text


def _deepseek() -> dict:
    return text(
        "deepseek_v3",
        num_key_value_heads=6,
        kv_lora_rank=16,
        q_lora_rank=20,
        qk_rope_head_dim=8,
        qk_nope_head_dim=12,
        v_head_dim=10,
        head_dim=8,
        moe_intermediate_size=20,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=2,
        topk_group=1,
        first_k_dense_replace=1,
    )


def _qwen35() -> dict:
    return text(
        "qwen3_5_text",
        num_hidden_layers=4,
        layer_types=["linear_attention", "full_attention", "linear_attention", "full_attention"],
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
    )


PLAIN = (
    Family("llama", "llama", lambda: text("llama")),
    Family("qwen3", "qwen3", lambda: text("qwen3")),
    Family("mistral", "mistral", lambda: text("mistral", sliding_window=None)),
)
HYBRID = (Family("qwen3.5", "qwen3_5_text", _qwen35, full_layers=(1, 3), since="5.14"),)
NATIVE = (
    Family("mistral-sliding", "mistral", lambda: text("mistral", sliding_window=9), full_layers=()),
    Family("deepseek-v3", "deepseek_v3", _deepseek, full_layers=()),
)
