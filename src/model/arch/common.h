// What the architectures' files share: reading the fields and tensors that most checkpoints name alike.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.h"
#include "model/decoder.h"
#include "model/weights.h"

namespace upg {

/// The fields of config.json that nearly all decoders have.
struct Sizes {
  uint64_t hidden, intermediate, layers, vocab, max_context;
  uint64_t heads, kv_heads, head_dim;
  float epsilon;
  bool tied;  // the output matrix is the embedding
};

/// Throws Error naming the field that is missing, out of range or at odds with another. `otherwise_head_dim`: where
/// "head_dim" is absent; 0: hidden_size / num_attention_heads.
Sizes read_sizes(const ConfigReader& config, bool otherwise_tied = false, uint64_t otherwise_head_dim = 0);

/// The activation function in `key`, among `accepted`: pairs of the name in config.json and that in glu_names().
/// Throws Error(kUnsupported) listing them.
struct ActivationName {
  std::string_view in_config, of_glu;
};
std::string_view read_activation(const ConfigReader& config, std::string_view key,
                                 std::initializer_list<ActivationName> accepted);
inline std::string_view read_silu(const ConfigReader& config) {
  return read_activation(config, "hidden_act", {{"silu", "silu"}});
}

/// Throws Error(kUnsupported) unless the boolean is absent or `wanted`.
void require(const ConfigReader& config, std::string_view key, bool wanted);

/// The tensor prefix.weight and, if `bias`, prefix.bias.
Projection read_projection(Weights& weights, const std::string& prefix, uint64_t rows, uint64_t cols, bool bias,
                           bool to_stream = false);

/// Several projections of one input: prefix + name + ".weight" for each name, one below the other.
struct NamedRows {
  std::string_view name;
  uint64_t rows;
};
Projection read_projections(Weights& weights, const std::string& prefix, std::initializer_list<NamedRows> parts,
                            uint64_t cols, bool bias);

struct AttentionTraits {
  bool qkv_bias = false;
  bool output_bias = false;
  bool head_norms = false;  // q_norm and k_norm
  bool to_stream = true;    // its result is added to the residual stream as it is
};
/// prefix + "q_proj", "k_proj", "v_proj", "o_proj", and "q_norm", "k_norm".
SelfAttention read_attention(Weights& weights, const std::string& prefix, const Sizes& sizes,
                             const AttentionTraits& traits);

/// prefix + "gate_proj", "up_proj", "down_proj", or what they are called instead.
struct MlpNames {
  std::string_view gate = "gate_proj", up = "up_proj", down = "down_proj";
};
GatedMlp read_mlp(Weights& weights, const std::string& prefix, std::string_view activation, uint64_t hidden,
                  uint64_t intermediate, bool bias = false, bool to_stream = true, const MlpNames& names = {});

/// Experts of one shape: prefix + "gate" routes, prefix + "experts.<e>." are read_mlp()'s.
Experts read_experts(Weights& weights, const std::string& prefix, std::string_view activation, uint64_t hidden,
                     uint64_t intermediate, const Routing& routing, const MlpNames& names = {});

/// The RMSNorm weight `name`.weight; `plus_one`: stored as its difference from 1.
std::vector<float> read_norm(Weights& weights, const std::string& name, uint64_t n, bool plus_one = false);

/// Sizes, embedding, final norm and head, under the usual names. Layers and rotary are still to be filled in.
struct FrameTraits {
  bool norm_plus_one = false;
  std::string_view norm = "model.norm.weight";
};
Decoder read_frame(Weights& weights, const Sizes& sizes, const FrameTraits& traits = {});

/// The window of each layer, 0 for none: "layer_types" says where it is there, else `windowed`.
std::vector<uint64_t> layer_windows(const ConfigReader& config, uint64_t layers, uint64_t window,
                                    const std::function<bool(uint64_t layer)>& windowed);
/// As the Qwen families have them: "use_sliding_window", "sliding_window", "max_window_layers".
std::vector<uint64_t> qwen_windows(const ConfigReader& config, uint64_t layers);

/// A layer with the four norms that Gemma 2 has, each stored as its difference from 1, and nothing else.
DecoderLayer read_sandwich_norms(Weights& weights, const std::string& prefix, uint64_t hidden);

/// "model.layers.<i>."
std::string layer_prefix(uint64_t index);

/// A decoder whose layers differ in nothing but their window: norms as Llama names them, attention and a gated MLP.
struct LlamaTraits {
  AttentionTraits attention;
  bool mlp_bias = false;
};
Decoder read_llama(const ConfigReader& config, Weights& weights, const Sizes& sizes, const LlamaTraits& traits,
                   const std::vector<uint64_t>& windows);

}  // namespace upg
