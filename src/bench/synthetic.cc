// Models of real shapes whose weights are drawn: for speed, which does not depend on them.
#include <fmt/ranges.h>

#include <cmath>
#include <map>
#include <random>
#include <utility>

#include "base/error.h"
#include "codec/codec_table.h"
#include "format/upg_writer.h"
#include "model/config.h"
#include "upg/bench.h"

namespace upg {
namespace {

constexpr uint64_t kDrawnRows = 64;                                  // encoded once a codec and width, then repeated
const char* const kCodecs[] = {"trellis2", "trellis3", "trellis4"};  // from small to large

struct Tensor {
  std::string name;
  std::vector<uint64_t> shape;
  const Codec* codec;
};

std::vector<Tensor> tensors_of(const ConfigReader& config) {
  const uint64_t hidden = config.integer("hidden_size", 1, 1 << 20);
  const uint64_t intermediate = config.integer("intermediate_size", 1, 1 << 22);
  const uint64_t heads = config.integer("num_attention_heads", 1, 1 << 16);
  const uint64_t kv_heads = config.integer("num_key_value_heads", 1, heads);
  const uint64_t vocabulary = config.integer("vocab_size", 1, 1 << 24);
  const uint64_t qkv = hidden + 2 * kv_heads * (hidden / heads);
  const Codec* dense = &find_codec("bf16");
  const Codec* coded = &find_codec(kCodecs[0]);
  std::vector<Tensor> tensors = {{"model.embed_tokens.weight", {vocabulary, hidden}, coded}};
  for (uint64_t i = 0; i < config.integer("num_hidden_layers", 1, 4096); ++i) {
    const std::string prefix = fmt::format("model.layers.{}.", i);
    tensors.push_back({prefix + "input_layernorm.weight", {hidden}, dense});
    tensors.push_back({prefix + "self_attn.qkv_proj.weight", {qkv, hidden}, coded});
    tensors.push_back({prefix + "self_attn.o_proj.weight", {hidden, hidden}, coded});
    tensors.push_back({prefix + "post_attention_layernorm.weight", {hidden}, dense});
    tensors.push_back({prefix + "mlp.gate_up_proj.weight", {2 * intermediate, hidden}, coded});
    tensors.push_back({prefix + "mlp.down_proj.weight", {hidden, intermediate}, coded});
  }
  tensors.push_back({"model.norm.weight", {hidden}, dense});
  tensors.push_back({"lm_head.weight", {vocabulary, hidden}, coded});
  return tensors;
}

uint64_t stored_bytes(const Tensor& tensor) {
  const uint64_t rows = tensor.shape.size() == 2 ? tensor.shape[0] : 1;
  return tensor.codec->stored_bytes(rows, tensor.shape.back(), 0);
}

// Every matrix gets the largest codec that the budget allows, one step at a time so that they stay alike.
void choose_codecs(std::vector<Tensor>& tensors, std::string_view shape, double ratio) {
  uint64_t parameters = 0, bytes = 0;
  for (const Tensor& tensor : tensors) {
    parameters += tensor.shape.size() == 2 ? tensor.shape[0] * tensor.shape[1] : tensor.shape[0];
    bytes += stored_bytes(tensor);
  }
  const double budget = ratio > 0 ? std::floor(4 * static_cast<double>(parameters) / ratio) : 0;
  if (static_cast<double>(bytes) > budget)
    fail(ErrorCode::kInvalidArgument, "ratio {}: {} is between {:.2f} and about 7.6 here", ratio, shape,
         4 * static_cast<double>(parameters) / static_cast<double>(bytes));
  for (const char* id : kCodecs) {
    for (Tensor& tensor : tensors) {
      if (tensor.shape.size() != 2) continue;
      Tensor larger = tensor;
      larger.codec = &find_codec(id);
      const uint64_t with = bytes - stored_bytes(tensor) + stored_bytes(larger);
      if (static_cast<double>(with) > budget) continue;
      bytes = with;
      tensor = larger;
    }
  }
}

// Normal weights of power 1 / cols, so that products keep the size of what they multiply.
EncodedMatrix draw(const Codec& codec, uint64_t rows, uint64_t cols) {
  return codec.encode(rows, cols,
                      [cols](uint64_t row, std::span<float> out) {
                        std::mt19937 generator(static_cast<unsigned>(row + 1));
                        std::normal_distribution<float> normal(0, 1 / std::sqrt(static_cast<float>(cols)));
                        for (float& weight : out) weight = normal(generator);
                      },
                      {});
}

// A few rows stand for all: parts that grow with the rows are repeated.
class Drawn {
 public:
  Drawn(const Codec& codec, uint64_t cols) : parts_(draw(codec, kDrawnRows, cols)) {
    const EncodedMatrix twice = draw(codec, 2 * kDrawnRows, cols);
    for (size_t i = 0; i < parts_.components.size(); ++i)
      repeated_.push_back(twice.components[i].data.size() == 2 * parts_.components[i].data.size());
  }
  size_t size() const { return repeated_.size(); }
  const std::string& suffix(size_t i) const { return parts_.components[i].suffix; }
  UpgPlanPart plan(size_t i, uint64_t rows) const {
    const auto& part = parts_.components[i];
    UpgPlanPart planned{part.suffix, part.dtype, part.shape};
    if (repeated_[i]) planned.shape[0] = planned.shape[0] * rows / kDrawnRows;
    return planned;
  }
  void append(UpgWriter& writer, const std::string& name, size_t i, uint64_t rows) const {
    const std::span<const std::byte> data = parts_.components[i].data;
    uint64_t left = repeated_[i] ? data.size() * rows / kDrawnRows : data.size();
    while (left > 0) {
      const uint64_t n = std::min<uint64_t>(left, data.size());
      writer.append(name, suffix(i), data.first(n));
      left -= n;
    }
  }

 private:
  EncodedMatrix parts_;
  std::vector<bool> repeated_;
};

}  // namespace

const std::vector<SyntheticShape>& synthetic_shapes() {
  static const std::vector<SyntheticShape> shapes = {
      {"phi-4", R"({"architectures": ["Phi3ForCausalLM"], "hidden_size": 5120, "intermediate_size": 17920,
 "num_hidden_layers": 40, "num_attention_heads": 40, "num_key_value_heads": 10, "vocab_size": 100352,
 "max_position_embeddings": 16384, "rms_norm_eps": 1e-05, "rope_theta": 250000.0, "tie_word_embeddings": false})"},
      {"phi-3-mini", R"({"architectures": ["Phi3ForCausalLM"], "hidden_size": 3072, "intermediate_size": 8192,
 "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064,
 "max_position_embeddings": 4096, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "tie_word_embeddings": false})"},
      {"tiny", R"({"architectures": ["Phi3ForCausalLM"], "hidden_size": 256, "intermediate_size": 512,
 "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512,
 "max_position_embeddings": 4096, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "tie_word_embeddings": false})"}};
  return shapes;
}

void write_synthetic_model(std::string_view shape, double ratio, const std::string& path, const Progress& progress) {
  const SyntheticShape* found = nullptr;
  std::vector<std::string_view> known;
  for (const SyntheticShape& row : synthetic_shapes()) {
    known.push_back(row.name);
    if (row.name == shape) found = &row;
  }
  if (!found) fail(ErrorCode::kInvalidArgument, "no shape \"{}\"; choose one of: {}", shape, fmt::join(known, ", "));
  const ConfigReader config(std::string(found->config), fmt::format("shape {}", shape));
  std::vector<Tensor> tensors = tensors_of(config);
  choose_codecs(tensors, shape, ratio);

  std::map<std::pair<std::string_view, uint64_t>, Drawn> drawn;
  UpgPlan plan;
  plan.architecture = config.architecture();
  plan.producer = "upg " UPG_VERSION ", made up";
  plan.texts.config = std::string(found->config);
  uint64_t total = 0, done = 0;
  for (const Tensor& tensor : tensors) {
    total += stored_bytes(tensor);
    UpgPlanEntry& entry = plan.entries.emplace_back(
        UpgPlanEntry{tensor.name, std::string(tensor.codec->id), tensor.codec->version, tensor.shape, {}});
    if (tensor.shape.size() == 1) {
      entry.parts.push_back({"", DType::kBF16, tensor.shape});
      continue;
    }
    const Drawn& source =
        drawn.try_emplace({tensor.codec->id, tensor.shape[1]}, *tensor.codec, tensor.shape[1]).first->second;
    for (size_t i = 0; i < source.size(); ++i) entry.parts.push_back(source.plan(i, tensor.shape[0]));
  }
  UpgWriter writer(path, std::move(plan));
  for (const Tensor& tensor : tensors) {
    if (tensor.shape.size() == 1) {
      const std::vector<uint16_t> ones(tensor.shape[0], 0x3f80);  // 1 in bfloat16
      writer.append(tensor.name, "", std::as_bytes(std::span(ones)));
    } else {
      const Drawn& source = drawn.at({tensor.codec->id, tensor.shape[1]});
      for (size_t i = 0; i < source.size(); ++i) source.append(writer, tensor.name, i, tensor.shape[0]);
    }
    done += stored_bytes(tensor);
    if (progress && !progress("writing a made-up model", done, total))
      fail(ErrorCode::kCancelled, "{}: cancelled", path);
  }
  writer.finish();
}

}  // namespace upg
