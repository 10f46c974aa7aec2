// THE list of what llama.cpp, which reads GGUF files, makes of each architecture. A row says how its code differs from
// what a Decoder can say; gguf_check.cc refuses what a row does not allow.
#pragma once

#include <cstdint>
#include <string_view>

namespace upg {

/// How llama.cpp's code for an architecture mixes experts.
struct GgufExperts {
  bool any = false;
  bool all_keys = false;     // scores, norm and scale of weights, and a bias of the choice are said in the file
  bool normalize = false;    // otherwise: whether weights are made to sum to 1
  bool any_weights = false;  // a norm after the block makes their sum irrelevant
  bool dense_first = false;  // the first layers may have a plain block; otherwise all have experts or none has
  bool shared = false;       // a shared expert is there
  bool shared_gate = false;  // and its gate
};

struct GgufFamily {
  std::string_view name;                 // "general.architecture"
  std::string_view activation = "silu";  // of glu_names()
  bool interleaved = false;              // the two elements of a rotated pair are neighbours, not half a head apart
  bool fused = false;                    // one matrix of queries, keys and values, one of gates and ups
  bool partial_rotary = false;           // a part of a head may turn
  bool free_heads = false;               // heads need not be hidden_size wide together
  bool output_bias = false;              // of attention
  bool mlp_bias = false;
  bool head_norms = false;                                        // there, or not there
  bool latent = false;                                            // latent attention, or not
  std::string_view attention_post_norm = {}, mlp_post_norm = {};  // tensors' names; empty: there are none
  bool windows = false;                                           // sliding ones, by layer
  bool local_rotary = false;                                      // layers with a window turn by a base of their own
  bool softcap = false;                                           // of scores: there, or not
  bool logit_cap = false;                                         // may be there
  bool needs_logit_cap = false;                                   // and must be
  std::string_view score_scale_key = {};      // where the scale of scores is said; empty: 1 / sqrt(head_dim)
  uint64_t hidden_scaled_layers = 0;          // but 1 / sqrt(hidden / heads) in a model of so many layers
  std::string_view embedding_scale_key = {};  // where the scale of embeddings is said
  bool root_embedding = false;                // otherwise: sqrt(hidden), not 1
  std::string_view logit_scale_key = {};      // where that of logits is said; empty: 1
  bool rotary_factors = false;                // a factor a pair (llama3)
  bool long_factors = false;                  // two sets of them (longrope)
  uint64_t unrotated_step = 0;                // every so-manieth layer does not turn
  bool tied_only = false;                     // the head is the embedding
  bool own_head = false;                      // the file has a head even if it is the embedding
  GgufExperts experts{};
  std::string_view note = {};  // what differs in any case
};

/// By the name in config.json's "architectures"; nullptr where llama.cpp has none.
const GgufFamily* find_gguf_family(std::string_view architecture);

}  // namespace upg
