"""DeepSeek V2-Lite, V2 and V3: latent attention, grouped choice of experts, yarn."""
from .row import Row

V2 = dict(
    architectures=["DeepseekV2ForCausalLM"], attention_bias=False, attention_dropout=0.0, bos_token_id=0,
    eos_token_id=1, first_k_dense_replace=1, hidden_act="silu", initializer_range=0.02, model_type="deepseek_v2",
    moe_layer_freq=1, norm_topk_prob=False, pretraining_tp=1, rms_norm_eps=1e-6, rope_theta=10000,
    scoring_func="softmax", aux_loss_alpha=0.001, seq_aux=True, tie_word_embeddings=False, use_cache=True,
    vocab_size=151)
V3 = V2 | dict(
    architectures=["DeepseekV3ForCausalLM"], ep_size=1, model_type="deepseek_v3", norm_topk_prob=True,
    num_nextn_predict_layers=1, scoring_func="sigmoid", topk_method="noaux_tc", vocab_size=149)
del V3["aux_loss_alpha"], V3["seq_aux"]
CLEAR = {r"mlp\.gate\.weight": 3.0, r"experts\.down_proj": 2.0}


def yarn(mscale, mscale_all_dim, beta_fast=32, beta_slow=1):
    """With 12 or more rotary dimensions some frequencies stay, some are divided and some are between."""
    return dict(beta_fast=beta_fast, beta_slow=beta_slow, factor=40, mscale=mscale, mscale_all_dim=mscale_all_dim,
                original_max_position_embeddings=4096, type="yarn")


ROWS = {
    "deepseek_v2_lite_bf16": Row(501, "bf16", V2 | dict(
        hidden_size=40, intermediate_size=68, kv_lora_rank=20, max_position_embeddings=163840, moe_intermediate_size=20,
        n_group=1, n_routed_experts=8, n_shared_experts=2, num_attention_heads=4, num_experts_per_tok=3,
        num_hidden_layers=3, num_key_value_heads=4, q_lora_rank=None, qk_nope_head_dim=10, qk_rope_head_dim=16,
        rope_scaling=yarn(0.707, 0.707), routed_scaling_factor=1.0, topk_group=1, topk_method="greedy",
        v_head_dim=14), gains=CLEAR),
    "deepseek_v2_bf16": Row(502, "bf16", V2 | dict(
        ep_size=1, hidden_size=40, intermediate_size=52, kv_lora_rank=16, max_position_embeddings=163840,
        moe_intermediate_size=16, n_group=4, n_routed_experts=12, n_shared_experts=2, num_attention_heads=4,
        num_experts_per_tok=3, num_hidden_layers=3, num_key_value_heads=4, q_lora_rank=24, qk_nope_head_dim=12,
        qk_rope_head_dim=16, rope_scaling=yarn(0.707, 0.5, beta_fast=16, beta_slow=3), routed_scaling_factor=3.5,
        topk_group=2, topk_method="group_limited_greedy", v_head_dim=10), gains=CLEAR),
    "deepseek_v3_bf16": Row(511, "bf16", V3 | dict(
        first_k_dense_replace=1, hidden_size=40, intermediate_size=52, kv_lora_rank=16, max_position_embeddings=163840,
        moe_intermediate_size=16, n_group=4, n_routed_experts=12, n_shared_experts=1, num_attention_heads=4,
        num_experts_per_tok=3, num_hidden_layers=3, num_key_value_heads=4, q_lora_rank=24, qk_nope_head_dim=12,
        qk_rope_head_dim=12, rope_scaling=yarn(1.0, 1.0), routed_scaling_factor=2.5, topk_group=2,
        v_head_dim=10), gains=CLEAR),
    # No scaling of positions, no compression of queries, probabilities as they are.
    "deepseek_v3_plain_bf16": Row(512, "bf16", V3 | dict(
        first_k_dense_replace=0, hidden_size=36, intermediate_size=52, kv_lora_rank=18, max_position_embeddings=4096,
        moe_intermediate_size=20, n_group=2, n_routed_experts=8, n_shared_experts=1, norm_topk_prob=False,
        num_attention_heads=3, num_experts_per_tok=2, num_hidden_layers=2, num_key_value_heads=3, q_lora_rank=None,
        qk_nope_head_dim=8, qk_rope_head_dim=10, rope_scaling=None, routed_scaling_factor=1.8, topk_group=1,
        v_head_dim=16), gains=CLEAR),
}
