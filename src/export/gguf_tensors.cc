#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "export/gguf_model.h"

namespace upg {
namespace {

// Rows of several matrices one below the other, in an order of their own, multiplied by a number.
struct Rows {
  std::vector<const Linear*> parts{};
  uint64_t first = 0, count = 0;
  uint64_t head = 0;           // rows of a head, where its rotated rows change places; 0: they stay
  uint64_t rotated_begin = 0;  // of a head
  uint64_t rotated = 0;        // rows from there on
  float scale = 1;

  // The source's row that becomes row i: of a rotated pair, one is half of them away and becomes the neighbour.
  uint64_t source_of(uint64_t i) const {
    if (head == 0 || i % head < rotated_begin || i % head >= rotated_begin + rotated) return first + i;
    const uint64_t r = i % head - rotated_begin;
    return first + i - r + r / 2 + (r % 2) * (rotated / 2);
  }

  void read(uint64_t i, float* out) const {
    uint64_t row = source_of(i);
    for (const Linear* part : parts) {
      if (row >= part->rows()) {
        row -= part->rows();
        continue;
      }
      part->matrix().codec->decode_row(part->matrix(), row, out);
      if (scale != 1)
        for (uint64_t c = 0; c < part->cols(); ++c) out[c] *= scale;
      return;
    }
    UPG_CHECK(false);
  }

  std::vector<float> of_vector(const std::vector<float>& all) const {
    std::vector<float> out(count);
    for (uint64_t i = 0; i < count; ++i) out[i] = all.at(source_of(i)) * scale;
    return out;
  }
};

Rows all_rows(const Projection& projection) {
  Rows rows{.count = projection.rows()};
  for (const Linear& part : projection.parts()) rows.parts.push_back(&part);
  return rows;
}

Rows some_rows(const Projection& projection, uint64_t first, uint64_t count) {
  Rows rows = all_rows(projection);
  rows.first = first;
  rows.count = count;
  return rows;
}

class Tensors {
 public:
  Tensors(GgufSource& source, const GgufType& type, const std::function<void(const std::string&)>& release)
      : s_(source), d_(source.decoder), f_(source.family), type_(type), release_(release) {}

  std::vector<GgufTensor> all() {
    const bool tied = d_.head.parts().at(0).name() == d_.embedding.name();
    add_matrix("token_embd.weight", Rows{.parts = {&d_.embedding}, .count = d_.embedding.rows()});
    add_vector("output_norm.weight", d_.norm);
    if (!tied || f_.own_head) add_matrix("output.weight", all_rows(d_.head));
    add_factors();
    for (size_t i = 0; i < d_.layers.size(); ++i) {
      prefix_ = fmt::format("blk.{}.", i);
      add_layer(d_.layers[i]);
    }
    if (narrow_ != 0)
      s_.notes.push_back(fmt::format("{} matrices are f16: their rows are not multiples of {}, as {} asks", narrow_,
                                     type_.block, type_.name));
    return std::move(tensors_);
  }

 private:
  void add_layer(const DecoderLayer& layer) {
    add_vector(prefix_ + "attn_norm.weight", layer.attention_norm);
    if (const auto* attention = std::get_if<SelfAttention>(&layer.attention))
      add_attention(*attention, layer.rotary);
    else
      add_latent(std::get<LatentAttention>(layer.attention), layer.rotary);
    if (!layer.attention_post_norm.empty())
      add_vector(fmt::format("{}{}.weight", prefix_, f_.attention_post_norm), layer.attention_post_norm);
    add_vector(prefix_ + "ffn_norm.weight", layer.mlp_norm);
    if (const auto* mlp = std::get_if<GatedMlp>(&layer.mlp))
      add_mlp(*mlp);
    else
      add_experts(std::get<Experts>(layer.mlp));
    if (!layer.mlp_post_norm.empty())
      add_vector(fmt::format("{}{}.weight", prefix_, f_.mlp_post_norm), layer.mlp_post_norm);
  }

  void add_attention(const SelfAttention& a, size_t rotary) {
    const AttentionShape& shape = a.shape;
    const uint64_t width = shape.heads * shape.head_dim, kv = shape.kv_heads * shape.head_dim;
    float scale = gguf_query_scale(s_, shape);
    if (!a.query_norm.empty()) {
      std::vector<float> norm = a.query_norm;
      for (float& w : norm) w *= scale;
      add_vector(prefix_ + "attn_q_norm.weight", norm);
      add_vector(prefix_ + "attn_k_norm.weight", a.key_norm);
      scale = 1;
    }
    if (f_.fused && scale == 1) {
      add_product("attn_qkv", all_rows(a.qkv), a.qkv);
    } else {
      Rows queries = some_rows(a.qkv, 0, width), keys = some_rows(a.qkv, width, kv);
      if (needs_neighbours(rotary)) {
        queries.head = keys.head = shape.head_dim;
        queries.rotated = keys.rotated = d_.rotary.at(rotary).rope.rotary_dim();
      }
      queries.scale = scale;
      add_product("attn_q", queries, a.qkv);
      add_product("attn_k", keys, a.qkv);
      add_product("attn_v", some_rows(a.qkv, width + kv, kv), a.qkv);
    }
    add_product("attn_output", all_rows(a.output), a.output);
  }

  void add_latent(const LatentAttention& a, size_t rotary) {
    Rows queries = all_rows(a.query), latent = all_rows(a.latent);
    if (needs_neighbours(rotary)) {
      queries.head = a.plain_dim + a.rotary_dim;
      queries.rotated_begin = a.plain_dim;
      latent.head = a.rank + a.rotary_dim;
      latent.rotated_begin = a.rank;
      queries.rotated = latent.rotated = a.rotary_dim;
    }
    const bool two_steps = !a.query_down.parts().empty();
    if (two_steps) {
      add_matrix(prefix_ + "attn_q_a.weight", all_rows(a.query_down));
      add_vector(prefix_ + "attn_q_a_norm.weight", a.query_norm);
    }
    add_matrix(prefix_ + (two_steps ? "attn_q_b.weight" : "attn_q.weight"), queries);
    add_matrix(prefix_ + "attn_kv_a_mqa.weight", latent);
    add_vector(prefix_ + "attn_kv_a_norm.weight", a.latent_norm);
    add_expansion(a);
    add_matrix(prefix_ + "attn_output.weight", all_rows(a.output));
  }

  // A head's part of the expansion: for keys [rank, plain_dim], transposed because queries are multiplied with it, and
  // for values [value_dim, rank].
  void add_expansion(const LatentAttention& a) {
    const Linear* expand = &a.expand;
    const uint64_t of_head = a.plain_dim + a.value_dim;
    GgufTensor& keys = add(prefix_ + "attn_k_b.weight", {a.heads, a.rank, a.plain_dim}, type_);
    keys.grain = a.rank;
    keys.read = [expand, of_head, rank = a.rank, plain = a.plain_dim](uint64_t row, float* out) {
      std::vector<float> line(rank);
      const Matrix& matrix = expand->matrix();
      for (uint64_t j = 0; j < plain; ++j) {
        matrix.codec->decode_row(matrix, row / rank * of_head + j, line.data());
        for (uint64_t c = 0; c < rank; ++c) out[c * plain + j] = line[c];
      }
    };
    GgufTensor& values = add(prefix_ + "attn_v_b.weight", {a.heads, a.value_dim, a.rank}, type_);
    values.read = [expand, of_head, plain = a.plain_dim, n = a.value_dim](uint64_t row, float* out) {
      const Matrix& matrix = expand->matrix();
      matrix.codec->decode_row(matrix, row / n * of_head + plain + row % n, out);
    };
    release_after({expand});
  }

  void add_mlp(const GatedMlp& mlp, const std::string& suffix = "") {
    const uint64_t width = mlp.down.cols();
    if (f_.fused) {
      add_product("ffn_up" + suffix, all_rows(mlp.gate_up), mlp.gate_up);
    } else {
      add_product("ffn_gate" + suffix, some_rows(mlp.gate_up, 0, width), mlp.gate_up);
      add_product("ffn_up" + suffix, some_rows(mlp.gate_up, width, width), mlp.gate_up);
    }
    add_product("ffn_down" + suffix, all_rows(mlp.down), mlp.down);
  }

  void add_experts(const Experts& e) {
    static const GgufType& f32 = *find_gguf_type("f32");  // few and decisive: llama.cpp's files keep them so
    add_matrix(prefix_ + "ffn_gate_inp.weight", all_rows(e.router), f32);
    if (!e.routing.choice_bias.empty()) add_vector(prefix_ + "exp_probs_b.bias", e.routing.choice_bias);
    const uint64_t width = e.experts.at(0).down.cols();
    std::vector<Rows> gates, ups, downs;
    for (const GatedMlp& expert : e.experts) {
      gates.push_back(some_rows(expert.gate_up, 0, width));
      ups.push_back(some_rows(expert.gate_up, width, width));
      downs.push_back(all_rows(expert.down));
    }
    add_stack("ffn_gate_exps", std::move(gates));
    add_stack("ffn_up_exps", std::move(ups));
    add_stack("ffn_down_exps", std::move(downs));
    if (e.shared) add_mlp(*e.shared, "_shexp");
    if (e.shared_gate) {
      std::vector<float> gate(d_.hidden);
      all_rows(*e.shared_gate).read(0, gate.data());
      add_vector(prefix_ + "ffn_gate_inp_shexp.weight", gate);
    }
  }

  // rope_freqs: what frequencies are divided by.
  void add_factors() {
    const Rotary& rotary = d_.rotary.at(0);
    const std::vector<float> plain = plain_frequencies(rotary.rope.rotary_dim(), rotary.scaling.base);
    const auto factors = [&](const Rope& rope) {
      std::vector<float> out(plain.size());
      for (size_t i = 0; i < plain.size(); ++i) out[i] = plain[i] / rope.frequency().at(i);
      return out;
    };
    if (rotary.scaling.type == "llama3") add_vector("rope_freqs.weight", factors(rotary.rope));
    if (rotary.limit == UINT64_MAX) return;
    add_vector("rope_factors_long.weight", factors(rotary.extended));
    add_vector("rope_factors_short.weight", factors(rotary.rope));
  }

  bool needs_neighbours(size_t rotary) const { return f_.interleaved && !d_.rotary.at(rotary).rope.interleaved(); }

  // prefix + name + ".weight", and ".bias" where the projection has one.
  void add_product(const std::string& name, const Rows& rows, const Projection& projection) {
    add_matrix(prefix_ + name + ".weight", rows);
    if (!projection.bias().empty()) add_vector(prefix_ + name + ".bias", rows.of_vector(projection.bias()));
  }

  void add_matrix(const std::string& name, const Rows& rows) { add_matrix(name, rows, type_); }
  void add_matrix(const std::string& name, const Rows& rows, const GgufType& type) {
    add(name, {rows.count, rows.parts.at(0)->cols()}, type).read = [rows](uint64_t row, float* out) {
      rows.read(row, out);
    };
    release_after(rows.parts);
  }

  void add_stack(const std::string& name, std::vector<Rows> experts) {
    const uint64_t rows = experts.at(0).count;
    std::vector<const Linear*> parts;
    for (const Rows& expert : experts) parts.insert(parts.end(), expert.parts.begin(), expert.parts.end());
    GgufTensor& tensor = add(prefix_ + name + ".weight", {experts.size(), rows, parts.at(0)->cols()}, type_);
    tensor.read = [experts = std::move(experts), rows](uint64_t row, float* out) {
      experts[row / rows].read(row % rows, out);
    };
    release_after(parts);
  }

  void add_vector(const std::string& name, std::vector<float> values) {
    static const GgufType& f32 = *find_gguf_type("f32");
    GgufTensor& tensor = add(name, {values.size()}, f32);
    tensor.read = [values = std::move(values)](uint64_t, float* out) { std::copy(values.begin(), values.end(), out); };
  }

  GgufTensor& add(const std::string& name, std::vector<uint64_t> shape, const GgufType& type) {
    const bool fits = shape.back() % type.block == 0;
    if (!fits) ++narrow_;
    GgufTensor& tensor = tensors_.emplace_back();
    tensor.name = name;
    tensor.type = fits ? &type : find_gguf_type("f16");
    tensor.shape = std::move(shape);
    return tensor;
  }

  void release_after(std::vector<const Linear*> parts) {
    tensors_.back().done = [parts = std::move(parts), release = release_] {
      for (const Linear* part : parts) release(part->name());
    };
  }

  GgufSource& s_;
  const Decoder& d_;
  const GgufFamily& f_;
  const GgufType& type_;
  const std::function<void(const std::string&)>& release_;
  std::string prefix_;
  std::vector<GgufTensor> tensors_;
  size_t narrow_ = 0;
};

}  // namespace

float gguf_query_scale(const GgufSource& source, const AttentionShape& shape) {
  const GgufFamily& f = source.family;
  if (shape.scale == 0 || !f.score_scale_key.empty()) return 1;
  const bool by_hidden = f.hidden_scaled_layers != 0 && source.decoder.layers.size() == f.hidden_scaled_layers;
  const uint64_t width = by_hidden ? source.decoder.hidden / shape.heads : shape.head_dim;
  const float factor = shape.scale * std::sqrt(static_cast<float>(width));
  return std::abs(factor - 1) < 1e-6f ? 1 : factor;
}

std::vector<GgufTensor> gguf_tensors(GgufSource& source, const GgufType& type,
                                     const std::function<void(const std::string&)>& release) {
  return Tensors(source, type, release).all();
}

}  // namespace upg
