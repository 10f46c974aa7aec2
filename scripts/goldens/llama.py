"""Dense models of the Llama kind: Llama, Mistral, Qwen2, Qwen3, SmolLM3."""
from .row import Row

LLAMA = dict(
    architectures=["LlamaForCausalLM"], bos_token_id=1, eos_token_id=2, hidden_act="silu", initializer_range=0.02,
    max_position_embeddings=2048, model_type="llama", pretraining_tp=1, rms_norm_eps=1e-5, rope_scaling=None,
    tie_word_embeddings=False, use_cache=True, vocab_size=211)
MISTRAL = dict(
    architectures=["MistralForCausalLM"], attention_dropout=0.0, bos_token_id=1, eos_token_id=2, hidden_act="silu",
    initializer_range=0.02, max_position_embeddings=32768, model_type="mistral", rms_norm_eps=1e-5,
    tie_word_embeddings=False, use_cache=True, vocab_size=223)
QWEN2 = dict(
    architectures=["Qwen2ForCausalLM"], attention_dropout=0.0, bos_token_id=1, eos_token_id=2, hidden_act="silu",
    initializer_range=0.02, max_position_embeddings=32768, model_type="qwen2", rms_norm_eps=1e-6, rope_theta=1000000.0,
    sliding_window=32768, use_cache=True, use_sliding_window=False, vocab_size=227)
QWEN3 = dict(
    architectures=["Qwen3ForCausalLM"], attention_bias=False, attention_dropout=0.0, bos_token_id=1, eos_token_id=2,
    hidden_act="silu", initializer_range=0.02, max_position_embeddings=40960, model_type="qwen3", rms_norm_eps=1e-6,
    rope_scaling=None, rope_theta=1000000, sliding_window=None, use_cache=True, use_sliding_window=False,
    vocab_size=229)


def llama3_rope(factor):
    """With these numbers some frequencies stay, some are divided by the factor and some are between."""
    return dict(factor=factor, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64,
                rope_type="llama3")


ROWS = {
    "llama_2_f16": Row(101, "f16", LLAMA | dict(
        hidden_size=60, intermediate_size=100, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=6,
        pad_token_id=0)),
    "llama_3_1_bf16": Row(102, "bf16", LLAMA | dict(
        attention_bias=False, attention_dropout=0.0, mlp_bias=False, hidden_size=72, intermediate_size=136,
        num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2, rope_theta=500000.0,
        eos_token_id=[2, 5, 6], max_position_embeddings=1024, rope_scaling=llama3_rope(8.0))),
    "llama_3_2_tied_bf16": Row(103, "bf16", LLAMA | dict(
        attention_bias=False, attention_dropout=0.0, mlp_bias=False, head_dim=16, hidden_size=72,
        intermediate_size=132, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2, rope_theta=500000.0,
        max_position_embeddings=2048, tie_word_embeddings=True, rope_scaling=llama3_rope(32.0))),
    "llama_biases_f32": Row(104, "f32", LLAMA | dict(
        attention_bias=True, attention_dropout=0.0, mlp_bias=True, hidden_size=48, intermediate_size=72,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=1, rope_theta=10000.0, vocab_size=131)),
    "llama_head_dim_bf16": Row(105, "bf16", LLAMA | dict(
        attention_bias=False, attention_dropout=0.0, mlp_bias=False, head_dim=18, hidden_size=60,
        intermediate_size=92, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        rope_theta=10000.0)),
    "mistral_window_bf16": Row(111, "bf16", MISTRAL | dict(
        hidden_size=60, intermediate_size=100, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
        rope_theta=10000.0, sliding_window=8)),
    "mistral_nemo_f32": Row(112, "f32", MISTRAL | dict(
        head_dim=10, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, rope_theta=1000000.0, sliding_window=None)),
    "qwen2_tied_bf16": Row(121, "bf16", QWEN2 | dict(
        hidden_size=60, intermediate_size=124, max_window_layers=3, num_attention_heads=6, num_hidden_layers=3,
        num_key_value_heads=2, tie_word_embeddings=True)),
    "qwen2_f32": Row(122, "f32", QWEN2 | dict(
        hidden_size=56, intermediate_size=76, max_window_layers=2, num_attention_heads=7, num_hidden_layers=2,
        num_key_value_heads=1, tie_word_embeddings=False)),
    "qwen2_window_bf16": Row(123, "bf16", QWEN2 | dict(
        hidden_size=48, intermediate_size=84, max_window_layers=2, num_attention_heads=4, num_hidden_layers=4,
        num_key_value_heads=2, sliding_window=8, tie_word_embeddings=False, use_sliding_window=True)),
    "qwen3_tied_bf16": Row(131, "bf16", QWEN3 | dict(
        head_dim=18, hidden_size=60, intermediate_size=116, max_window_layers=3, num_attention_heads=6,
        num_hidden_layers=3, num_key_value_heads=2, tie_word_embeddings=True)),
    "qwen3_f32": Row(132, "f32", QWEN3 | dict(
        head_dim=10, hidden_size=48, intermediate_size=72, max_window_layers=2, num_attention_heads=4,
        num_hidden_layers=2, num_key_value_heads=2, tie_word_embeddings=False)),
    "smollm3_bf16": Row(141, "bf16", dict(
        architectures=["SmolLM3ForCausalLM"], attention_bias=False, attention_dropout=0.0, bos_token_id=1,
        eos_token_id=2, hidden_act="silu", hidden_size=60, initializer_range=0.02, intermediate_size=84,
        max_position_embeddings=65536, mlp_bias=False, model_type="smollm3", no_rope_layer_interval=4,
        no_rope_layers=[1, 1, 1, 0, 1], num_attention_heads=6, num_hidden_layers=5, num_key_value_heads=2, pad_token_id=2,
        rms_norm_eps=1e-6, rope_scaling=None, rope_theta=5000000.0, sliding_window=None, use_cache=True,
        use_sliding_window=False, vocab_size=211, tie_word_embeddings=True)),
}
