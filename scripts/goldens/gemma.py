"""Gemma 1, 2 and 3 (text). The caps are smaller than the published ones, so that they bend what is so small a model."""
from .row import Row

GEMMA = dict(
    architectures=["GemmaForCausalLM"], attention_bias=False, attention_dropout=0.0, bos_token_id=2, eos_token_id=1,
    hidden_act="gelu", initializer_range=0.02, max_position_embeddings=8192, model_type="gemma", pad_token_id=0,
    rms_norm_eps=1e-6, rope_scaling=None, rope_theta=10000.0, use_cache=True, vocab_size=233)
GEMMA2 = dict(
    architectures=["Gemma2ForCausalLM"], attention_bias=False, attention_dropout=0.0, bos_token_id=2,
    cache_implementation="hybrid", eos_token_id=[1, 107], hidden_act="gelu_pytorch_tanh",
    hidden_activation="gelu_pytorch_tanh", initializer_range=0.02, max_position_embeddings=8192, model_type="gemma2",
    pad_token_id=0, rms_norm_eps=1e-6, rope_theta=10000.0, sliding_window=8, use_cache=True, vocab_size=239)
GEMMA3 = dict(
    architectures=["Gemma3ForCausalLM"], attention_bias=False, attention_dropout=0.0, attn_logit_softcapping=None,
    bos_token_id=2, cache_implementation="hybrid", eos_token_id=[1, 106], final_logit_softcapping=None,
    hidden_activation="gelu_pytorch_tanh", initializer_range=0.02, max_position_embeddings=32768,
    model_type="gemma3_text", pad_token_id=0, rms_norm_eps=1e-6, rope_local_base_freq=10000, rope_scaling=None,
    rope_theta=1000000, sliding_window=8, use_cache=True, vocab_size=241)
# Else the embedding, which is also the output matrix, makes every token its own likeliest successor.
FREE = {r"embed_tokens": 0.4, r"model\.norm": 8.0, r"(o|down)_proj": 1.5}
STEEP = FREE | {r"[qk]_proj\.weight": 1.25, r"model\.norm": 11.0}

ROWS = {
    # hidden_act is "gelu" in the published files and means the tanh form.
    "gemma_bf16": Row(201, "bf16", GEMMA | dict(
        head_dim=20, hidden_size=60, intermediate_size=132, num_attention_heads=4, num_hidden_layers=3,
        num_key_value_heads=1), gains=FREE),
    "gemma_2_bf16": Row(211, "bf16", GEMMA2 | dict(
        attn_logit_softcapping=3.0, final_logit_softcapping=5.0, head_dim=14, hidden_size=60, intermediate_size=68,
        num_attention_heads=6, num_hidden_layers=4, num_key_value_heads=2, query_pre_attn_scalar=10), gains=STEEP),
    "gemma_2_f32": Row(212, "f32", GEMMA2 | dict(
        attn_logit_softcapping=2.0, final_logit_softcapping=7.0, head_dim=18, hidden_size=48, intermediate_size=68,
        num_attention_heads=2, num_hidden_layers=3, num_key_value_heads=1, query_pre_attn_scalar=18,
        sliding_window=5, vocab_size=151), gains=STEEP),
    # Five local layers for each global one; 13 layers so that both kinds follow each other twice.
    "gemma_3_bf16": Row(221, "bf16", GEMMA3 | dict(
        head_dim=14, hidden_size=36, intermediate_size=44, num_attention_heads=3, num_hidden_layers=13,
        num_key_value_heads=1, query_pre_attn_scalar=14, sliding_window_pattern=6), gains=FREE),
    "gemma_3_linear_f32": Row(222, "f32", GEMMA3 | dict(
        head_dim=12, hidden_size=48, intermediate_size=52, num_attention_heads=4, num_hidden_layers=4,
        num_key_value_heads=2, query_pre_attn_scalar=20, rope_scaling=dict(factor=8.0, rope_type="linear"),
        rope_theta=10000, rope_local_base_freq=500, sliding_window=5, sliding_window_pattern=3,
        vocab_size=149), gains=FREE),
}
