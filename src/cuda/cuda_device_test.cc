// The cuda device against the cpu device: random models of odd shapes, every codec, cache and fusion, and the demo
// model. Products have the same exact integer sums on both, so logits differ by the order of float sums only, and by
// what a rounding to int8 or f16 that falls to the other side makes of it.
#include "cuda/cuda_device.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <random>

#include "base/float16.h"
#include "codec/trellis.h"
#include "cuda/first_gpu.h"
#include "format/safetensors_writer.h"
#include "format/test_util.h"
#include "format/upg_file.h"
#include "model/test_util.h"
#include "ops/test_candidates.h"
#include "upg/bench.h"
#include "upg/compress.h"
#include "upg/engine.h"

namespace upg {
namespace {

struct Shape {
  const char* name;
  uint64_t hidden, intermediate, heads, kv_heads, head_dim, layers, vocab, window;
  // All but Phi-3 have queries, keys, values, gate and up in matrices of their own.
  const char* architecture = "Phi3ForCausalLM";
  const char* more = "";  // of config.json
};
constexpr Shape kShapes[] = {
    {"small", 64, 96, 4, 2, 16, 2, 333, 0},
    {"one_kv_head", 160, 208, 5, 1, 32, 3, 1000, 0},
    {"wide_heads", 264, 520, 2, 2, 128, 2, 77, 0},
    {"window", 96, 64, 6, 3, 24, 2, 512, 17},
    {"tall", 40, 2000, 8, 1, 8, 1, 20000, 0},
    {"broad", 6400, 100, 2, 1, 32, 2, 100, 0},
    {"mistral", 96, 160, 6, 2, 16, 3, 300, 9, "MistralForCausalLM"},
    {"qwen2", 96, 160, 3, 1, 32, 2, 300, 0, "Qwen2ForCausalLM"},
    {"qwen3", 96, 160, 6, 2, 64, 2, 300, 0, "Qwen3ForCausalLM"},
};

// A checkpoint of normal weights.
void write_checkpoint(const Shape& s, const std::string& dir) {
  std::filesystem::create_directories(dir);
  write_file(dir + "/config.json",
             fmt::format(R"({{"architectures": ["{}"], "hidden_size": {}, "intermediate_size": {},
 "num_hidden_layers": {}, "num_attention_heads": {}, "num_key_value_heads": {}, "head_dim": {}, "vocab_size": {},
 "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "sliding_window": {}{}}})",
                         s.architecture, s.hidden, s.intermediate, s.layers, s.heads, s.kv_heads, s.head_dim, s.vocab,
                         s.window ? std::to_string(s.window) : "null", s.more));
  SafetensorsWriter writer(dir + "/model.safetensors");
  struct Tensor {
    std::string name;
    std::vector<uint64_t> shape;
  };
  std::vector<Tensor> tensors = {{"model.embed_tokens.weight", {s.vocab, s.hidden}}};
  for (uint64_t i = 0; i < s.layers; ++i) {
    const std::string prefix = fmt::format("model.layers.{}.", i);
    tensors.push_back({prefix + "input_layernorm.weight", {s.hidden}});
    const std::string architecture = s.architecture;
    if (architecture == "Qwen2ForCausalLM") {
      tensors.push_back({prefix + "self_attn.q_proj.bias", {s.heads * s.head_dim}});
      for (const char* name : {"k", "v"})
        tensors.push_back({prefix + "self_attn." + name + "_proj.bias", {s.kv_heads * s.head_dim}});
    }
    if (architecture == "Qwen3ForCausalLM")
      for (const char* name : {"q", "k"})
        tensors.push_back({prefix + "self_attn." + name + "_norm.weight", {s.head_dim}});
    if (architecture != "Phi3ForCausalLM") {
      tensors.push_back({prefix + "self_attn.q_proj.weight", {s.heads * s.head_dim, s.hidden}});
      for (const char* name : {"k", "v"})
        tensors.push_back({prefix + "self_attn." + name + "_proj.weight", {s.kv_heads * s.head_dim, s.hidden}});
      for (const char* name : {"gate", "up"})
        tensors.push_back({prefix + "mlp." + name + "_proj.weight", {s.intermediate, s.hidden}});
    } else {
      tensors.push_back({prefix + "self_attn.qkv_proj.weight", {(s.heads + 2 * s.kv_heads) * s.head_dim, s.hidden}});
      tensors.push_back({prefix + "mlp.gate_up_proj.weight", {2 * s.intermediate, s.hidden}});
    }
    tensors.push_back({prefix + "self_attn.o_proj.weight", {s.hidden, s.heads * s.head_dim}});
    tensors.push_back({prefix + "post_attention_layernorm.weight", {s.hidden}});
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

std::vector<float> all_logits(Session& session, std::span<const int32_t> tokens) {
  std::vector<float> logits;
  session.feed_all(tokens, 0,
                   [&](uint64_t, std::span<const float> row) { logits.insert(logits.end(), row.begin(), row.end()); });
  return logits;
}

class CudaDevice : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!cuda::has_gpu()) GTEST_SKIP() << "no CUDA device was found";
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

  // Root mean square of the differences, relative to the logits.
  static double difference(std::span<const float> actual, std::span<const float> expected) {
    EXPECT_EQ(actual.size(), expected.size());
    double sum = 0, power = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      sum += std::pow(actual[i] - expected[i], 2);
      power += std::pow(expected[i], 2);
    }
    return std::sqrt(sum / power);
  }

  void expect_same(const std::string& file, const std::string& fusion, const std::string& kv, const std::string& label,
                   std::optional<uint64_t> gpu_layers = {}) {
    const auto cpu = Engine::open(file);
    const auto gpu = Engine::open(file, {.device = "cuda", .fusion = fusion, .gpu_layers = gpu_layers});
    std::mt19937 random(3);
    std::vector<int32_t> tokens(150);
    for (int32_t& token : tokens) token = static_cast<int32_t>(random() % cpu->info().vocab_size);
    Session a(cpu, {.context = 256, .kv = kv}), b(gpu, {.context = 256, .kv = kv}), c(gpu, {.context = 256, .kv = kv});
    const std::vector<float> expected = all_logits(a, tokens);
    const uint64_t vocab = cpu->info().vocab_size;

    std::vector<float> steps;
    for (const int32_t& token : tokens) {
      const std::span<const float> row = b.feed(std::span(&token, 1));
      steps.insert(steps.end(), row.begin(), row.end());
    }
    const double by_steps = difference(steps, expected);
    EXPECT_LE(by_steps, 0.02) << label << ", token by token";
    // Where no activation is so near the middle of two steps that it rounds otherwise, agreement is that of float sums.
    double closest = 1;
    for (uint64_t i = 0; i < 16 && closest > 1e-5; ++i) {
      a.rewind(0);
      b.rewind(0);
      const std::vector<int32_t> token = {tokens[i]};
      closest = std::min(closest, difference(b.feed(token), a.feed(token)));
    }
    EXPECT_LE(closest, 1e-5) << label;

    const double whole = difference(all_logits(c, tokens), expected);
    EXPECT_LE(whole, 0.05) << label << ", as a prompt";
    c.rewind(20);
    const std::span<const float> row = c.feed(std::span(tokens).subspan(20, 7));
    EXPECT_LE(difference(row, std::span(expected).subspan(26 * vocab, vocab)), 0.06) << label << ", after rewinding";
    std::printf("%s: relative difference %.1e token by token, %.1e as a prompt\n", label.c_str(), by_steps, whole);
  }

  // Timelines of these lengths in passes together, single tokens beside a piece of a prompt, against each alone.
  void expect_alone(const Shape& shape, const char* kv, const std::vector<uint64_t>& lengths, uint64_t steps) {
    Weights weights(model(shape, "trellis3"));
    OpContext context(2);
    const auto loaded = load_model(weights);
    const auto device = cuda::open_device(*loaded, context, {.fusion = "token", .gpu_layers = {}, .progress = {}});
    const uint64_t vocab = loaded->shape().vocab_size;
    std::mt19937 random(9);
    const auto draw = [&](uint64_t n) {
      std::vector<int32_t> tokens(n);
      for (int32_t& token : tokens) token = static_cast<int32_t>(random() % vocab);
      return tokens;
    };
    std::vector<std::unique_ptr<Timeline>> together, alone;
    for (uint64_t length : lengths) {
      const std::vector<int32_t> prompt = draw(length);
      for (auto* timelines : {&together, &alone}) {
        timelines->push_back(device->timeline(800, find_kv_type(kv), Activations::kQuantized));
        timelines->back()->forward(prompt, {}, nullptr);
      }
    }
    for (uint64_t step = 0; step < steps; ++step) {
      std::vector<std::vector<int32_t>> tokens;
      std::vector<std::vector<float>> rows, expected;
      std::vector<Work> work;
      std::vector<Candidates> next(together.size());
      const std::vector<int32_t> apart = {3};
      for (uint64_t i = 0; i < together.size(); ++i) {
        tokens.push_back(draw(i + 1 == step ? 37 : 1));
        const LogitsRange range = {tokens[i].size() - 1, tokens[i].size()};
        rows.emplace_back(vocab);
        expected.emplace_back(vocab);
        alone[i]->forward(tokens[i], range, expected[i].data());
        work.push_back({.timeline = together[i].get(), .tokens = tokens[i], .range = range, .logits = rows[i].data()});
        // Every second one asks for candidates first.
        if (i % 2 == 1) work[i].request = {.vocab_size = vocab, .count = 20, .apart = apart};
        if (i % 2 == 1) work[i].candidates = &next[i];
      }
      device->forward(work);
      for (uint64_t i = 1; i < rows.size(); i += 2) {
        Candidates found = next[i];
        together[i]->fetch_logits(next[i]);
        rows[i] = next[i].logits;
        if (!found.logits.empty()) continue;  // few tokens go one timeline after the other
        const Candidates all = testing_util::reference_candidates(rows[i], work[i].request);
        ASSERT_GE(found.likeliest.size(), all.likeliest.size());
        std::sort(found.likeliest.begin(), found.likeliest.end(), likelier);
        for (uint64_t k = 0; k < all.likeliest.size(); ++k)
          EXPECT_EQ(found.likeliest[k].token, all.likeliest[k].token) << shape.name << " " << kv << ", timeline " << i;
        EXPECT_EQ(found.apart[0].logit, rows[i][3]);
      }
      for (uint64_t i = 0; i < rows.size(); ++i) {
        EXPECT_LE(difference(rows[i], expected[i]), 0.05) << shape.name << " " << kv << ", timeline " << i;
        EXPECT_EQ(together[i]->length(), alone[i]->length());
      }
    }
  }

  std::string folder_;
};

TEST_F(CudaDevice, AgreesWithTheCpuForAllShapesAndCodecs) {
  for (const Shape& shape : kShapes)
    for (const char* codec : {"trellis2", "trellis3", "trellis4"})
      expect_same(model(shape, codec), "token", "f16", fmt::format("{} {}", shape.name, codec));
}

TEST_F(CudaDevice, EveryFusionAndCacheAgrees) {
  const std::string file = model(kShapes[1], "trellis3");
  for (const char* fusion : {"none", "graph", "layer", "token"})
    for (const char* kv : {"f16", "int8"}) expect_same(file, fusion, kv, fmt::format("{} {}", fusion, kv));
}

// Blocks share the positions of a group of heads from some hundreds of them on.
TEST_F(CudaDevice, LongContextsAgreeTokenByToken) {
  constexpr uint64_t kTokens = 700;
  for (const Shape& shape : {kShapes[0], kShapes[1], kShapes[2]}) {
    const std::string file = model(shape, "trellis3");
    const auto cpu = Engine::open(file), gpu = Engine::open(file, {.device = "cuda"});
    for (const char* kv : {"f16", "int8"}) {
      Session a(cpu, {.context = kTokens, .kv = kv}), b(gpu, {.context = kTokens, .kv = kv});
      std::mt19937 random(3);
      std::vector<int32_t> tokens(kTokens);
      for (int32_t& token : tokens) token = static_cast<int32_t>(random() % shape.vocab);
      const std::vector<float> expected = all_logits(a, tokens);
      double furthest = 0;
      for (uint64_t i = 0; i < kTokens; ++i) {
        const std::span<const float> row = b.feed(std::span(tokens).subspan(i, 1));
        if (i % 16 == 0 || i + 1 == kTokens)
          furthest = std::max(furthest, difference(row, std::span(expected).subspan(i * shape.vocab, shape.vocab)));
      }
      EXPECT_LE(furthest, 0.04) << shape.name << ", " << kv;
      std::printf("%s, %s: relative difference at most %.1e of %d tokens\n", shape.name, kv, furthest,
                  static_cast<int>(kTokens));
    }
  }
}

TEST_F(CudaDevice, FirstLayersOnTheCpuChangeNothing) {
  for (const Shape& shape : kShapes)
    for (uint64_t n = 1; n < shape.layers; ++n)
      expect_same(model(shape, "trellis3"), "token", "f16", fmt::format("{}, last {} layers", shape.name, n), n);
}

TEST_F(CudaDevice, EveryFusionAndCacheAgreesWithLayersOnTheCpu) {
  const std::string file = model(kShapes[1], "trellis3");
  for (const char* fusion : {"none", "graph", "layer", "token"})
    for (const char* kv : {"f16", "int8"})
      expect_same(file, fusion, kv, fmt::format("last layer, {} {}", fusion, kv), 1);
}

// As many layers as there are, and more, are all of them: the same bits.
TEST_F(CudaDevice, AllLayersOnTheGpuAreNoSplit) {
  const Shape& shape = kShapes[1];
  const std::string file = model(shape, "trellis3");
  const std::vector<int32_t> tokens = {5, 6, 7};
  const auto logits = [&](std::optional<uint64_t> gpu_layers) {
    const auto engine = Engine::open(file, {.device = "cuda", .gpu_layers = gpu_layers});
    EXPECT_EQ(engine->info().device.find("CPU") == std::string::npos, gpu_layers != 1u) << engine->info().device;
    Session session(engine);
    return all_logits(session, tokens);
  };
  const std::vector<float> all = logits({});
  EXPECT_EQ(logits(shape.layers), all);
  EXPECT_EQ(logits(1000), all);
  EXPECT_LE(difference(logits(1), all), 0.05);
}

// Layer 0 sees everything and the others a window, which the GPU does not run together.
TEST_F(CudaDevice, LayersThatTheGpuCannotRunMayBeOnTheCpu) {
  const Shape mixed = {"qwen2_mixed",
                       96,
                       160,
                       3,
                       1,
                       32,
                       3,
                       300,
                       9,
                       "Qwen2ForCausalLM",
                       R"(, "use_sliding_window": true, "max_window_layers": 1)"};
  const std::string file = model(mixed, "trellis3");
  EXPECT_THROW(Engine::open(file, {.device = "cuda"}), Error);
  EXPECT_THROW(Engine::open(file, {.device = "cuda", .gpu_layers = 3}), Error);
  expect_same(file, "token", "f16", "layers of several windows", 2);
}

// Blocks tell words of one layer from those of the layer before by a bit, whoever's layers they are.
TEST_F(CudaDevice, SessionsTakeTurns) {
  const Shape& odd = kShapes[1];
  ASSERT_EQ(odd.layers % 2, 1u);
  const std::string file = model(odd, "trellis3");
  const auto logits = [](Session& session, int32_t token) {
    const std::span<const float> row = session.feed(std::span(&token, 1));
    return std::vector<float>(row.begin(), row.end());
  };
  for (uint64_t gpu_layers : {odd.layers, uint64_t{1}}) {
    const auto gpu = Engine::open(file, {.device = "cuda", .fusion = "token", .gpu_layers = gpu_layers});
    std::vector<std::vector<float>> alone[2];
    for (int which = 0; which < 2; ++which) {
      Session session(gpu);
      for (int32_t token = 0; token < 9; ++token) alone[which].push_back(logits(session, 7 * token + which));
    }
    Session sessions[] = {Session(gpu), Session(gpu)};
    for (int32_t token = 0; token < 9; ++token)
      for (int which = 0; which < 2; ++which)
        EXPECT_EQ(logits(sessions[which], 7 * token + which), alone[which][token])
            << "session " << which << ", layers " << gpu_layers;
  }
}

TEST_F(CudaDevice, SequencesTogetherGiveWhatTheyGiveAlone) {
  for (const Shape& shape : {kShapes[1], kShapes[2], kShapes[3], kShapes[7]})
    for (const char* kv : {"f16", "int8"}) expect_alone(shape, kv, {3, 40, 1, 700, 18}, 4);
}

// Small enough for racecheck.
TEST_F(CudaDevice, ThreeSequencesGiveWhatTheyGiveAlone) { expect_alone(kShapes[0], "f16", {3, 9, 5}, 2); }

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
  const std::pair<const char*, const char*> families[] = {{"mixtral_bf16", "mixtures of experts"},
                                                          {"deepseek_v3_bf16", "rotated neighbours"},
                                                          {"gemma_2_bf16", "scaled embeddings"},
                                                          {"llama_biases_f32", "12 rows"}};
  for (const auto& [model, what] : families) {
    try {
      Engine::open(testing_util::source_path(std::string("tests/data/models/") + model), {.device = "cuda"});
      ADD_FAILURE() << model << " was accepted";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(what), std::string::npos) << error.what();
    }
  }
}

// The likeliest token is the same wherever the CPU's choice is not a near tie.
TEST_F(CudaDevice, ChoosesTheTokensThatTheCpuChooses) {
  constexpr float kNearTie = 0.5f;
  const std::string file = folder_ + "/demo.upg";
  CompressOptions rounded;
  rounded.calibrate = "none";
  compress(testing_util::source_path("models/demo"), file, rounded);
  const auto cpu = Engine::open(file);
  const std::pair<const char*, std::optional<uint64_t>> ways[] = {{"none", {}},  {"graph", {}}, {"layer", {}},
                                                                  {"token", {}}, {"token", 1},  {"graph", 11}};
  for (const auto& [fusion, gpu_layers] : ways) {
    const auto gpu = Engine::open(file, {.device = "cuda", .fusion = fusion, .gpu_layers = gpu_layers});
    int compared = 0;
    for (const char* prompt : {"The history of", "Once upon a time", "In 1997, the city council"}) {
      Session a(cpu), b(gpu);
      std::vector<int32_t> next = cpu->tokenize(prompt);
      for (int i = 0; i < 64; ++i) {
        const std::span<const float> expected = a.feed(next), actual = b.feed(next);
        const auto best = std::max_element(expected.begin(), expected.end());
        float second = -INFINITY;
        for (auto it = expected.begin(); it != expected.end(); ++it)
          if (it != best) second = std::max(second, *it);
        const auto chosen = std::max_element(actual.begin(), actual.end()) - actual.begin();
        if (*best - second > kNearTie) {
          EXPECT_EQ(chosen, best - expected.begin())
              << fusion << ", layers " << gpu_layers.value_or(12) << ": " << prompt << ", token " << i;
          ++compared;
        }
        next = {static_cast<int32_t>(best - expected.begin())};
      }
    }
    EXPECT_GT(compared, 90) << fusion;
  }
}

// The GPU's own choice, which needs no logits, is that of the logits.
TEST_F(CudaDevice, ChoosesTheLikeliestTokenWithLayersOnTheCpuToo) {
  const std::string file = folder_ + "/demo.upg";
  CompressOptions rounded;
  rounded.calibrate = "none";
  compress(testing_util::source_path("models/demo"), file, rounded);
  for (const char* fusion : {"none", "graph", "layer", "token"}) {
    const auto gpu = Engine::open(file, {.device = "cuda", .fusion = fusion, .gpu_layers = 5});
    Session a(gpu), b(gpu);
    const std::vector<int32_t> prompt = gpu->tokenize("The history of");
    GenerateOptions greedy;
    greedy.sampling.temperature = 0;
    greedy.max_tokens = 32;
    greedy.ignore_eos = true;
    const std::vector<int32_t> tokens = a.generate(prompt, greedy).tokens;
    std::vector<int32_t> next = prompt, expected;
    while (expected.size() < 32) {
      const std::span<const float> logits = b.feed(next);
      next = {static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin())};
      expected.push_back(next[0]);
    }
    EXPECT_EQ(tokens, expected) << fusion;
  }
}

TEST_F(CudaDevice, ABenchOfASplitModelCountsBothPartsAndNoShareOfOneMemory) {
  const Shape& shape = kShapes[1];
  const std::string file = model(shape, "trellis3");
  BenchOptions options;
  options.prompts = {32};
  options.contexts = {16};
  options.tokens = 2;
  options.rounds = 1;
  options.device = "cuda";
  const BenchReport whole = bench_model(file, options);
  options.gpu_layers = 1;
  const BenchReport split = bench_model(file, options);
  EXPECT_FALSE(whole.gpu_layers.has_value());
  EXPECT_GT(whole.generation.at(0).fraction, 0);
  EXPECT_EQ(split.gpu_layers, 1u);
  EXPECT_EQ(split.generation.at(0).fraction, 0);
  EXPECT_EQ(split.read_bandwidth, 0);
  EXPECT_EQ(split.generation.at(0).weight_bytes, whole.generation.at(0).weight_bytes);
  EXPECT_EQ(split.generation.at(0).kv_bytes, whole.generation.at(0).kv_bytes);
  EXPECT_GT(split.prompts.at(0).tokens_per_second, 0);
}

// A model with a residual plane, which prompts and single tokens treat apart.
TEST_F(CudaDevice, ResidualsCount) {
  std::string file;
  for (double bits = 3.3; bits < 4.2 && file.empty(); bits += 0.1) {
    const std::string candidate = model(kShapes[2], "", bits);
    const UpgFile opened = UpgFile::open(candidate);
    for (const UpgEntry& entry : opened.entries())
      for (const TensorView& part : entry.parts)
        if (part.name.starts_with(kTrellisResidual)) file = candidate;
  }
  ASSERT_FALSE(file.empty()) << "no size left anything for a residual";
  expect_same(file, "token", "f16", "with a residual");
}

}  // namespace
}  // namespace upg
