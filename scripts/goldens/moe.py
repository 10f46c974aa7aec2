"""Mixtures of experts of the Llama kind: Mixtral, Qwen3-MoE, Qwen2-MoE."""
from .row import Row

MIXTRAL = dict(
    architectures=["MixtralForCausalLM"], attention_dropout=0.0, bos_token_id=1, eos_token_id=2, hidden_act="silu",
    initializer_range=0.02, max_position_embeddings=32768, model_type="mixtral", num_experts_per_tok=2,
    num_local_experts=8, output_router_logits=False, rms_norm_eps=1e-5, rope_theta=1000000.0,
    router_aux_loss_coef=0.02, tie_word_embeddings=False, use_cache=True, vocab_size=157)
QWEN3_MOE = dict(
    architectures=["Qwen3MoeForCausalLM"], attention_bias=False, attention_dropout=0.0, bos_token_id=1,
    eos_token_id=2, hidden_act="silu", initializer_range=0.02, max_position_embeddings=40960, model_type="qwen3_moe",
    output_router_logits=False, rms_norm_eps=1e-6, rope_scaling=None, rope_theta=1000000.0,
    router_aux_loss_coef=0.001, sliding_window=None, tie_word_embeddings=False, use_cache=True,
    use_sliding_window=False, vocab_size=163)
QWEN2_MOE = dict(
    architectures=["Qwen2MoeForCausalLM"], attention_dropout=0.0, bos_token_id=1, eos_token_id=2, hidden_act="silu",
    initializer_range=0.02, max_position_embeddings=32768, model_type="qwen2_moe", rms_norm_eps=1e-6,
    rope_theta=1000000.0, sliding_window=32768, tie_word_embeddings=False, use_cache=True, use_sliding_window=False,
    decoder_sparse_step=1, output_router_logits=False, router_aux_loss_coef=0.001, vocab_size=167)
# The chosen experts are clear, so that rounding does not choose others, and their outputs weigh.
CLEAR = {r"(mlp|block_sparse_moe)\.gate\.": 3.0, r"experts\.down_proj": 2.0}

ROWS = {
    "mixtral_bf16": Row(401, "bf16", MIXTRAL | dict(
        hidden_size=48, intermediate_size=36, num_attention_heads=4, num_hidden_layers=2, num_key_value_heads=2,
        sliding_window=None), gains=CLEAR),
    "mixtral_window_bf16": Row(402, "bf16", MIXTRAL | dict(
        hidden_size=36, intermediate_size=40, num_attention_heads=6, num_hidden_layers=2, num_key_value_heads=2,
        rope_theta=10000.0, sliding_window=8), gains=CLEAR),
    # decoder_sparse_step 1 and no mlp_only_layers, as published.
    "qwen3_moe_bf16": Row(411, "bf16", QWEN3_MOE | dict(
        decoder_sparse_step=1, head_dim=14, hidden_size=48, intermediate_size=92, max_window_layers=2,
        mlp_only_layers=[], moe_intermediate_size=20, norm_topk_prob=True, num_attention_heads=4, num_experts=12,
        num_experts_per_tok=3, num_hidden_layers=2, num_key_value_heads=2), gains=CLEAR),
    # Layers 1 and 5 have experts: the step is 2, and layer 3 is listed as dense.
    "qwen3_moe_mixed_bf16": Row(412, "bf16", QWEN3_MOE | dict(
        decoder_sparse_step=2, head_dim=16, hidden_size=36, intermediate_size=60, max_window_layers=6,
        mlp_only_layers=[3], moe_intermediate_size=28, norm_topk_prob=False, num_attention_heads=3, num_experts=8,
        num_experts_per_tok=2, num_hidden_layers=6, num_key_value_heads=1), gains=CLEAR),
    "qwen2_moe_bf16": Row(421, "bf16", QWEN2_MOE | dict(
        hidden_size=48, intermediate_size=92, max_window_layers=2, moe_intermediate_size=20, norm_topk_prob=False,
        num_attention_heads=4, num_experts=10, num_experts_per_tok=4, num_hidden_layers=2, num_key_value_heads=4,
        shared_expert_intermediate_size=76), gains=CLEAR),
}
