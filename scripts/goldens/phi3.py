"""Phi-3 with two sets of rotary factors ("longrope"): Phi-3.5-mini and Phi-4-mini.

transformers takes the short factors for a sequence of up to original_max_position_embeddings tokens and the long ones,
for all of its positions, above that; attention_factor is the same for both. When a continuation gets longer than that,
its generate() drops the cache and computes the whole sequence again with the long factors. "_short" goldens stay below
in prompt and continuation, "_long" ones are above from the prompt on.
"""
from .row import Row

PHI3 = dict(
    architectures=["Phi3ForCausalLM"], attention_bias=False, attention_dropout=0.0, bos_token_id=1, embd_pdrop=0.0,
    eos_token_id=2, hidden_act="silu", initializer_range=0.02, model_type="phi3", pad_token_id=2, resid_pdrop=0.0,
    rms_norm_eps=1e-5, rope_theta=10000.0, sliding_window=262144, use_cache=True, vocab_size=211)


def longrope(short, long):
    return dict(long_factor=long, short_factor=short, type="longrope")


PHI_3_5 = PHI3 | dict(
    hidden_size=60, intermediate_size=84, max_position_embeddings=512, num_attention_heads=6, num_hidden_layers=2,
    num_key_value_heads=6, original_max_position_embeddings=32, tie_word_embeddings=False,
    rope_scaling=longrope([1.0, 1.02, 1.05, 1.25, 1.4], [1.08, 1.99, 3.5, 11.25, 18.0]))
PHI_4_MINI = PHI3 | dict(
    full_attn_mod=1, hidden_size=64, intermediate_size=100, interpolate_factor=1, lm_head_bias=False,
    max_position_embeddings=1024, mlp_bias=False, num_attention_heads=4, num_hidden_layers=3, num_key_value_heads=2,
    original_max_position_embeddings=24, partial_rotary_factor=0.75, tie_word_embeddings=True,
    rope_scaling=longrope([1, 1, 1.25, 1.5, 2.0, 2.5], [1, 1.118320672, 2.5, 4.25, 11.5, 20.5]))

ROWS = {
    "phi_3_5_short_bf16": Row(301, "bf16", PHI_3_5, prompt=18),
    "phi_3_5_long_bf16": Row(302, "bf16", PHI_3_5, prompt=40),
    "phi_4_mini_short_bf16": Row(311, "bf16", PHI_4_MINI, prompt=11),
    "phi_4_mini_long_f32": Row(312, "f32", PHI_4_MINI | dict(
        num_hidden_layers=2, intermediate_size=60, vocab_size=127), prompt=36),
}
