// How fast a model runs here, against how fast this machine reads memory.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "upg/engine.h"
#include "upg/progress.h"

namespace upg {

struct BenchOptions {
  unsigned threads = 0;  // 0: as EngineOptions
  std::vector<uint64_t> prompts = {512};
  std::vector<uint64_t> contexts = {128, 4096};  // positions before the tokens that are timed;
                                                 // as many as the model has room for
  uint64_t tokens = 8;                           // generated in each round
  std::vector<uint64_t> streams{};               // sequences to decode together, at the first context
  unsigned rounds = 5;                           // medians are over rounds
  std::string kv = "f16";
  Progress progress;
  std::string device = "cpu";  // as EngineOptions
  std::string fusion;
  std::optional<uint64_t> gpu_layers{};
};

struct PromptSpeed {
  uint64_t tokens = 0;
  double tokens_per_second = 0;
};

struct GenerationSpeed {
  uint64_t context = 0;
  double tokens_per_second = 0;
  uint64_t weight_bytes = 0;    // read for one token: of every matrix that it multiplies with
  uint64_t kv_bytes = 0;        // read for one token: keys and values of the context
  double bytes_per_second = 0;  // both, times the speed
  double fraction = 0;          // of the read bandwidth measured between the same rounds; 0 with gpu_layers
};

/// Of several sequences whose tokens share passes over the weights, as upg::Scheduler runs them.
struct StreamsSpeed {
  uint64_t streams = 0;
  uint64_t context = 0;
  double tokens_per_second = 0;  // of all together
};

struct BenchReport {
  ModelInfo model;
  double load_seconds = 0;     // Engine::open, with the file as it was in the page cache
  double read_bandwidth = 0;   // bytes a second of the memory that weights are in, which no cache holds; 0 (not
                               // measured) with gpu_layers, where they are in two
  std::string bandwidth_kind;  // "reads" by all threads, or "copies", read and written bytes both counted
  std::vector<PromptSpeed> prompts;
  std::vector<GenerationSpeed> generation;
  std::vector<StreamsSpeed> streams;
  uint64_t resident_bytes = 0;  // on the device, with weights and caches, at the longest context; 0: not known
  std::string fusion;           // cuda: how a token's kernels were launched
  uint64_t launches_per_token = 0;
  std::optional<uint64_t> gpu_layers{};  // layers that ran on the GPU, where the CPU had the others
};

/// Runs the model of `path` on random tokens; needs no tokenizer. Throws Error.
BenchReport bench_model(const std::string& path, const BenchOptions& options = {});

struct KernelSpeed {
  std::string name;                      // as in kernel_report()
  uint64_t tokens = 1;                   // multiplied at once
  double cache_weights_per_second = 0;   // weights times tokens, of a matrix that fits the second-level cache
  double memory_weights_per_second = 0;  // of one that no cache holds
  double cache_bytes_per_second = 0;     // the same in stored bytes of weights
  double memory_bytes_per_second = 0;
};

/// Every product kernel that can run here, on all threads; on cuda the sparse ones, from memory only, with the density
/// in the name.
std::vector<KernelSpeed> bench_kernels(const BenchOptions& options = {});

/// Models that can be made up: name and shape.
struct SyntheticShape {
  std::string_view name;    // "phi-4"
  std::string_view config;  // config.json
};
const std::vector<SyntheticShape>& synthetic_shapes();

/// Writes a UPG file of the shape with random weights of sane size, 4 * parameters / ratio bytes of them at most, and
/// no tokenizer. Throws Error(kInvalidArgument) for an unknown shape, listing them, or a ratio that cannot be had.
void write_synthetic_model(std::string_view shape, double ratio, const std::string& path,
                           const Progress& progress = {});

}  // namespace upg
