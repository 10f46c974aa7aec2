// The cuda device against the cpu device: random models of odd shapes, every codec, cache and fusion, and the demo
// model. Products have the same exact integer sums on both, so logits differ by the order of float sums only, and by
// what a rounding to int8 or f16 that falls to the other side makes of it.
#include "cuda/cuda_device.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <random>

#include "base/float16.h"
#include "format/safetensors_writer.h"
#include "format/test_util.h"
#include "model/test_util.h"
#include "upg/compress.h"
#include "upg/engine.h"

namespace upg {
namespace {

bool has_gpu() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

struct Shape {
  const char* name;
  uint64_t hidden, intermediate, heads, kv_heads, head_dim, layers, vocab, window;
};
constexpr Shape kShapes[] = {
    {"small", 64, 96, 4, 2, 16, 2, 333, 0},        {"one_kv_head", 160, 208, 5, 1, 32, 3, 1000, 0},
    {"wide_heads", 264, 520, 2, 2, 128, 2, 77, 0}, {"window", 96, 64, 6, 3, 24, 2, 512, 17},
    {"tall", 40, 2000, 8, 1, 8, 1, 20000, 0},
};

// A checkpoint of normal weights.
void write_checkpoint(const Shape& s, const std::string& dir) {
  std::filesystem::create_directories(dir);
  write_file(dir + "/config.json",
             fmt::format(R"({{"architectures": ["Phi3ForCausalLM"], "hidden_size": {}, "intermediate_size": {},
 "num_hidden_layers": {}, "num_attention_heads": {}, "num_key_value_heads": {}, "head_dim": {}, "vocab_size": {},
 "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "sliding_window": {}}})",
                         s.hidden, s.intermediate, s.layers, s.heads, s.kv_heads, s.head_dim, s.vocab,
                         s.window ? std::to_string(s.window) : "null"));
  SafetensorsWriter writer(dir + "/model.safetensors");
  struct Tensor {
    std::string name;
    std::vector<uint64_t> shape;
  };
  std::vector<Tensor> tensors = {{"model.embed_tokens.weight", {s.vocab, s.hidden}}};
  for (uint64_t i = 0; i < s.layers; ++i) {
    const std::string prefix = fmt::format("model.layers.{}.", i);
    tensors.push_back({prefix + "input_layernorm.weight", {s.hidden}});
    tensors.push_back({prefix + "self_attn.qkv_proj.weight", {(s.heads + 2 * s.kv_heads) * s.head_dim, s.hidden}});
    tensors.push_back({prefix + "self_attn.o_proj.weight", {s.hidden, s.heads * s.head_dim}});
    tensors.push_back({prefix + "post_attention_layernorm.weight", {s.hidden}});
    tensors.push_back({prefix + "mlp.gate_up_proj.weight", {2 * s.intermediate, s.hidden}});
    tensors.push_back({prefix + "mlp.down_proj.weight", {s.hidden, s.intermediate}});
  }
  tensors.push_back({"model.norm.weight", {s.hidden}});
  tensors.push_back({"lm_head.weight", {s.vocab, s.hidden}});
  for (const Tensor& t : tensors) writer.declare(t.name, DType::kBF16, t.shape);
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  for (const Tensor& t : tensors) {
    const bool vector = t.shape.size() == 1;
    std::vector<uint16_t> data(t.shape[0] * (vector ? 1 : t.shape[1]));
    for (uint16_t& x : data)
      x = float_to_bf16(vector ? 1 + 0.1f * normal(random)
                               : normal(random) / std::sqrt(static_cast<float>(t.shape[1])));
    writer.append(t.name, std::as_bytes(std::span(data)));
  }
  writer.commit();
}

float largest(std::span<const float> x) {
  float most = 0;
  for (float v : x) most = std::max(most, std::abs(v));
  return most;
}

std::vector<float> all_logits(Session& session, std::span<const int32_t> tokens) {
  std::vector<float> logits;
  session.feed_all(tokens, 0,
                   [&](uint64_t, std::span<const float> row) { logits.insert(logits.end(), row.begin(), row.end()); });
  return logits;
}

class CudaDevice : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!has_gpu()) GTEST_SKIP() << "no CUDA device was found";
    folder_ = ::testing::TempDir() + fmt::format("cuda-{}", ::getpid());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string model(const Shape& shape, const std::string& codec, std::optional<double> bits = {}) {
    const std::string dir = folder_ + "/" + shape.name, file = dir + codec + ".upg";
    if (!std::filesystem::exists(dir)) write_checkpoint(shape, dir);
    CompressOptions options;
    options.codec = codec;
    options.bits = bits;
    options.calibrate = "none";
    compress(dir, file, options);
    return file;
  }

  void expect_same(const std::string& file, const std::string& fusion, const std::string& kv, uint64_t n,
                   const std::string& label) {
    const auto cpu = Engine::open(file);
    const auto gpu = Engine::open(file, {.device = "cuda", .fusion = fusion});
    std::mt19937 random(3);
    std::vector<int32_t> tokens(n);
    for (int32_t& token : tokens) token = static_cast<int32_t>(random() % cpu->info().vocab_size);
    Session a(cpu, {.context = 256, .kv = kv}), b(gpu, {.context = 256, .kv = kv}), c(gpu, {.context = 256, .kv = kv});
    const std::vector<float> expected = all_logits(a, tokens), whole = all_logits(b, tokens);
    ASSERT_EQ(expected.size(), whole.size());
    const float bound = 0.1f * largest(expected);  // of what one rounding to the other side may do to a small model
    double difference = 0, power = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_LE(std::abs(whole[i] - expected[i]), bound)
          << label << ", logit " << i << " " << whole[i] << " " << expected[i];
      difference += std::pow(whole[i] - expected[i], 2);
      power += std::pow(expected[i], 2);
    }
    EXPECT_LE(std::sqrt(difference / power), 2e-2) << label;
    std::printf("%s: relative difference %.2e\n", label.c_str(), std::sqrt(difference / power));
    // One at a time, and one more after forgetting some.
    for (size_t i = 0; i < 40; ++i) {
      const std::span<const float> row = c.feed(std::span(tokens).subspan(i, 1));
      for (size_t v = 0; v < row.size(); ++v)
        ASSERT_LE(std::abs(row[v] - expected[i * row.size() + v]), bound) << label << ", token " << i;
    }
    c.rewind(20);
    const std::span<const float> row = c.feed(std::span(tokens).subspan(20, 7));
    for (size_t v = 0; v < row.size(); ++v)
      ASSERT_LE(std::abs(row[v] - expected[26 * row.size() + v]), bound) << label << ", after rewinding";
  }

  std::string folder_;
};

TEST_F(CudaDevice, AgreesWithTheCpuForAllShapesAndCodecs) {
  for (const Shape& shape : kShapes)
    for (const char* codec : {"trellis2", "trellis3", "trellis4"})
      expect_same(model(shape, codec), "token", "f16", 150, fmt::format("{} {}", shape.name, codec));
}

TEST_F(CudaDevice, EveryFusionAndCacheAgrees) {
  const std::string file = model(kShapes[1], "trellis3");
  for (const char* fusion : {"none", "graph", "layer", "token"})
    for (const char* kv : {"f16", "int8"}) expect_same(file, fusion, kv, 150, fmt::format("{} {}", fusion, kv));
}

TEST_F(CudaDevice, WhatItCannotDoIsRefusedByName) {
  const std::string dir = folder_ + "/dense";
  write_checkpoint(kShapes[0], dir);
  try {
    Engine::open(dir, {.device = "cuda"});
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_NE(std::string(error.what()).find("model.embed_tokens.weight is stored as bf16"), std::string::npos)
        << error.what();
  }
}

TEST_F(CudaDevice, GreedyTextOfTheDemoModelIsTheCpus) {
  const std::string file = folder_ + "/demo.upg";
  CompressOptions rounded;
  rounded.calibrate = "none";
  compress(testing_util::source_path("models/demo"), file, rounded);
  const auto cpu = Engine::open(file);
  for (const char* fusion : {"none", "graph", "layer", "token"}) {
    const auto gpu = Engine::open(file, {.device = "cuda", .fusion = fusion});
    for (const char* prompt : {"The history of", "Once upon a time", "In 1997, the city council"}) {
      Session a(cpu), b(gpu);
      GenerateOptions options;
      options.max_tokens = 64;
      options.sampling.temperature = 0;
      EXPECT_EQ(b.generate(gpu->tokenize(prompt), options).text, a.generate(cpu->tokenize(prompt), options).text)
          << fusion << ": " << prompt;
    }
  }
}

}  // namespace
}  // namespace upg
