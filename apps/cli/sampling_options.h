// What upg run and upg chat have in common: options of the model, the session and the sampler, and words for results.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "command.h"
#include "hub_options.h"
#include "upg/engine.h"

namespace upg::cli {

struct SamplingArguments {
  uint64_t tokens = 0;
  double temperature = 0, top_p = 0, min_p = 0, repetition = 0, presence = 0, frequency = 0;
  uint32_t top_k = 0;
  uint64_t seed = 0;
  std::vector<std::string> stop, bias;
  std::string json_schema, grammar, regex;  // files, and a pattern
  bool ignore_eos = false;
};

/// -n, --temperature ... --ignore-eos, --json-schema, --grammar and --regex. `tokens` is the limit where none is given.
void add_sampling_options(CLI::App& command, SamplingArguments& arguments, uint64_t tokens);

/// The model's own settings, and over them what the command line gives. Throws Error.
GenerateOptions generate_options(const Engine& engine, const SamplingArguments& arguments, const CLI::App& command);

struct ModelArguments {
  std::string model;
  HubOptions hub;
  SessionOptions session;
  EngineOptions engine;
};

/// MODEL, and --context ... --fusion and the hub's options.
void add_model_argument(CLI::App& command, ModelArguments& arguments);
void add_session_options(CLI::App& command, ModelArguments& arguments);

/// Engine::open of the model, by path or name, with a progress bar.
std::shared_ptr<Engine> open_engine(const ModelArguments& arguments);

const char* name_of(FinishReason reason);

/// Tokens a second; 0 where no time was taken.
double rate(uint64_t tokens, double seconds);

}  // namespace upg::cli
