#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <random>

#include "base/error.h"
#include "bench/median.h"
#include "engine/engine_impl.h"
#include "model/decoder.h"
#include "upg/bench.h"

namespace upg {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Stored bytes of the matrices that a token multiplies with.
uint64_t weight_bytes_per_token(const Engine::Impl& engine) {
  std::map<std::string, uint64_t> bytes_of;
  for (const WeightInfo& weight : engine.weights.list()) bytes_of[weight.name] = weight.stored_bytes;
  double total = 0;
  for_each_matrix(engine.model->decoder(),
                  [&](const Linear& matrix, double share) { total += share * double(bytes_of.at(matrix.name())); });
  return static_cast<uint64_t>(total);
}

class ModelBench {
 public:
  ModelBench(Engine::Impl& engine, const BenchOptions& options)
      : engine_(engine), options_(options), logits_(engine.info.vocab_size) {
    const uint64_t prompt =
        options.prompts.empty() ? 0 : *std::max_element(options.prompts.begin(), options.prompts.end());
    const uint64_t context =
        options.contexts.empty() ? 0 : *std::max_element(options.contexts.begin(), options.contexts.end());
    capacity_ = std::max(prompt, context + options.tokens + 1);
    timeline_ = engine.device->timeline(capacity_, find_kv_type(options.kv), Activations::kQuantized);
    weight_bytes_ = weight_bytes_per_token(engine);
    total_steps_ = 1 + options.rounds * (options.prompts.size() + options.contexts.size() + options.streams.size());
  }

  // Tokens whose time does not count: the one maps all weights; the prompt, as llama-bench runs one, fills the memory
  // to work in.
  void warm_up() {
    timeline_->set_length(0);
    forward(1, true);
    timeline_->set_length(0);
    if (!options_.prompts.empty()) forward(std::min<uint64_t>(timeline_->chunk(), options_.prompts[0]), true);
    step("warming up");
  }

  void prompts(BenchReport& report) {
    const uint64_t chunk = timeline_->chunk();
    for (uint64_t n : options_.prompts) {
      std::vector<double> speeds;
      for (unsigned round = 0; round < options_.rounds; ++round) {
        timeline_->set_length(0);
        const auto start = Clock::now();
        for (uint64_t at = 0; at < n; at += chunk) forward(std::min(chunk, n - at), at + chunk >= n);
        speeds.push_back(static_cast<double>(n) / seconds_since(start));
        step("prompts");
      }
      report.prompts.push_back({n, median(speeds)});
    }
  }

  void generation(BenchReport& report) {
    std::vector<double> bandwidths;
    {
      Device& device = *engine_.device;
      // Two memories have no common speed to compare with, and a GPU that is full no room for measuring.
      const bool split = device.report().gpu_layers.has_value();
      const auto bandwidth = [&] { return split ? 0 : device.measure_bandwidth(); };
      for (uint64_t context : options_.contexts) {
        std::vector<double> speeds, fractions;
        GenerationSpeed result;
        result.context = context;
        result.weight_bytes = weight_bytes_;
        result.kv_bytes = timeline_->bytes_read_at(context);
        const auto bytes = static_cast<double>(result.weight_bytes + result.kv_bytes);
        for (unsigned round = 0; round < options_.rounds; ++round) {
          // Half of the passes before and half after the tokens: the machine drifts.
          double limit = bandwidth() + bandwidth();
          std::vector<double> tokens;
          timeline_->fill(context);
          int32_t token = 0;
          for (uint64_t i = 0; i < options_.tokens; ++i) {
            const auto start = Clock::now();
            timeline_->forward_candidates(std::span(&token, 1), {.vocab_size = engine_.info.vocab_size}, next_);
            token = next_.logits.empty() ? next_.likeliest[0].token : likeliest_of(next_.logits);
            tokens.push_back(1 / seconds_since(start));
          }
          limit += bandwidth() + bandwidth();
          bandwidths.push_back(limit / 4);
          speeds.push_back(median(tokens));
          fractions.push_back(split ? 0 : speeds.back() * bytes / bandwidths.back());
          step("generation");
        }
        result.tokens_per_second = median(speeds);
        result.bytes_per_second = result.tokens_per_second * bytes;
        result.fraction = median(fractions);
        report.generation.push_back(result);
      }
      report.read_bandwidth = median(bandwidths);
    }
    report.resident_bytes = engine_.device->memory_bytes();
    report_device(report);
  }

  void streams(BenchReport& report) {
    const uint64_t context = options_.contexts.empty() ? 0 : options_.contexts[0];
    for (uint64_t n : options_.streams) {
      std::vector<std::unique_ptr<Timeline>> timelines;
      for (uint64_t i = 0; i < n; ++i) {
        timelines.push_back(engine_.device->timeline(context + options_.tokens + 1, find_kv_type(options_.kv),
                                                     Activations::kQuantized));
      }
      const uint64_t vocab = engine_.info.vocab_size;
      std::vector<Candidates> next(n);
      std::vector<int32_t> tokens(n);
      std::vector<double> speeds;
      for (unsigned round = 0; round < options_.rounds; ++round) {
        for (auto& timeline : timelines) timeline->fill(context);
        std::vector<double> steps;
        for (uint64_t i = 0; i < options_.tokens; ++i) {
          std::vector<Work> work;
          for (uint64_t s = 0; s < n; ++s)
            work.push_back({.timeline = timelines[s].get(),
                            .tokens = std::span(&tokens[s], 1),
                            .request = {.vocab_size = vocab},
                            .candidates = &next[s]});
          const auto start = Clock::now();
          engine_.device->forward(work);
          steps.push_back(static_cast<double>(n) / seconds_since(start));
          for (int32_t& token : tokens) token = static_cast<int32_t>(random_() % vocab);
        }
        speeds.push_back(median(steps));
        step("streams");
      }
      report.streams.push_back({n, context, median(speeds)});
    }
  }

 private:
  void report_device(BenchReport& report) const {
    const DeviceReport device = engine_.device->report();
    report.fusion = device.fusion;
    report.launches_per_token = device.launches_per_token;
    report.gpu_layers = device.gpu_layers;
  }

  // Runs n random tokens.
  void forward(uint64_t n, bool logits) {
    tokens_.resize(n);
    for (int32_t& token : tokens_) token = static_cast<int32_t>(random_() % engine_.info.vocab_size);
    timeline_->forward(tokens_, logits ? LogitsRange{n - 1, n} : LogitsRange{}, logits_.data());
  }

  void step(std::string_view stage) {
    if (options_.progress && !options_.progress(stage, ++steps_, total_steps_))
      fail(ErrorCode::kCancelled, "cancelled");
  }

  Engine::Impl& engine_;
  const BenchOptions& options_;
  std::unique_ptr<Timeline> timeline_;
  std::vector<float> logits_;
  Candidates next_;
  std::vector<int32_t> tokens_;
  std::mt19937 random_;
  uint64_t capacity_ = 0, weight_bytes_ = 0, steps_ = 0, total_steps_ = 0;
};

}  // namespace

BenchReport bench_model(const std::string& path, const BenchOptions& options) {
  if (options.rounds == 0 || options.tokens == 0)
    fail(ErrorCode::kInvalidArgument, "rounds and tokens must be at least 1");
  for (uint64_t n : options.streams)
    if (n == 0 || n > 4096) fail(ErrorCode::kInvalidArgument, "{} streams: must be from 1 to 4096", n);
  for (uint64_t n : options.prompts)
    if (n == 0) fail(ErrorCode::kInvalidArgument, "a prompt of 0 tokens cannot be timed");
  BenchReport report;
  const auto start = Clock::now();
  const auto engine =
      Engine::open(path, {options.threads, options.progress, options.device, options.fusion, options.gpu_layers});
  report.load_seconds = seconds_since(start);
  report.model = engine->info();
  report.bandwidth_kind = engine->impl().device->bandwidth_kind();
  BenchOptions possible = options;
  const uint64_t limit = report.model.max_context;
  if (limit <= options.tokens + 1)
    fail(ErrorCode::kInvalidArgument, "{} tokens do not fit the {} positions of this model", options.tokens, limit);
  for (uint64_t& n : possible.prompts) n = std::min(n, limit);
  for (uint64_t& n : possible.contexts) n = std::min(n, limit - options.tokens - 1);
  ModelBench bench(engine->impl(), possible);
  bench.warm_up();
  bench.prompts(report);
  bench.generation(report);
  bench.streams(report);
  return report;
}

}  // namespace upg
