// How good is a model: perplexity and divergence on text, accuracy on tasks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "upg/error.h"
#include "upg/progress.h"

namespace upg {

struct Estimate {
  double value = 0;
  double standard_error = 0;
};

struct EvaluateOptions {
  std::string reference;   // compare with this model too; empty: none
  uint64_t context = 512;  // tokens a chunk
  uint64_t chunks = 0;     // 0: the whole text
  std::string kv = "f16";
  bool float_activations = false;  // as SessionOptions
  unsigned threads = 0;
  std::string device = "cpu";  // as EngineOptions; a reference runs on the cpu
  std::string fusion{};
  std::optional<uint64_t> gpu_layers{};
  Progress progress;
};

struct TextEvaluation {
  uint64_t tokens = 0;  // of the text
  uint64_t chunks = 0;
  uint64_t scored = 0;  // predictions that count
  Estimate perplexity;
  // With a reference:
  Estimate reference_perplexity;
  Estimate perplexity_ratio;
  Estimate mean_kld;  // KL divergence of this model from the reference, nats
  double p99_kld = 0;
  double max_kld = 0;
  Estimate same_top1;  // share of predictions whose likeliest token is the same
  double seconds = 0;
};

/// The protocol of llama.cpp's perplexity tool: non-overlapping chunks of `context` tokens; where the tokenizer adds a
/// first token it replaces each chunk's first; predictions from the middle of the chunk on are scored.
TextEvaluation evaluate_text(const std::string& model, const std::string& text_file,
                             const EvaluateOptions& options = {});

struct TaskEvaluation {
  std::string task;
  uint64_t items = 0;
  Estimate accuracy;
  std::optional<Estimate> normalized_accuracy;  // HellaSwag: by log-likelihood per byte of the ending
  std::optional<Estimate> perplexity;           // LAMBADA: of the last word's tokens
  double seconds = 0;
};

/// `task` is "hellaswag" (records of six lines: activity and context, number of the right ending, four endings) or
/// "lambada" (JSON lines with "text", whose last word is to be predicted). `items` 0: all.
TaskEvaluation evaluate_task(const std::string& model, const std::string& task, const std::string& data_file,
                             uint64_t items = 0, const EvaluateOptions& options = {});

}  // namespace upg
