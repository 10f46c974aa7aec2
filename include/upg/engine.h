// Start here: an Engine is a loaded model, a Session one timeline of tokens in it.
//
//   auto engine = upg::Engine::open("phi-4.upg");
//   upg::Session session(engine);
//   session.generate(engine->tokenize("Once upon a time"), {.max_tokens = 64},
//                    [](std::string_view text) { std::cout << text << std::flush; return true; });
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "upg/error.h"
#include "upg/progress.h"

namespace upg {

class Grammar;  // upg/grammar.h

struct EngineOptions {
  unsigned threads = 0;        // 0: one for each physical core the process may use
  Progress progress{};         // of reading a file that is not in memory yet, and of copying it to a device
  std::string device = "cpu";  // "cpu" or "cuda"
  std::string fusion{};        // cuda: "none", "graph", "layer" or "token"; empty: the fastest
  /// cuda, for models that do not fit the GPU: the last so many layers (at least 1) and the head run there, the
  /// embedding and the other layers on the CPU. None, or as many as the model has: everything on the GPU.
  std::optional<uint64_t> gpu_layers{};
  std::string chat_template{};  // Jinja, in place of the model's own
};

/// What EngineOptions::fusion may be on a device, the fastest last; empty where there is no choice.
std::vector<std::string_view> fusion_names(std::string_view device);

struct SamplingOptions {
  float temperature = 1.0f;  // 0: always the likeliest token
  uint32_t top_k = 0;        // keep the k likeliest; 0: all
  float top_p = 1.0f;        // keep the likeliest that together reach this probability
  float min_p = 0.0f;        // drop tokens below this share of the likeliest one's probability
  float repetition_penalty =
      1.0f;                       // divides positive and multiplies negative logits of tokens seen (Keskar et al. 2019)
  float presence_penalty = 0.0f;  // subtracted from the logit of every token generated so far
  float frequency_penalty = 0.0f;  // the same, once for each time it was generated
  std::map<int32_t, float> logit_bias;
  uint64_t seed = 0;
};

struct GenerateOptions {
  SamplingOptions sampling;
  uint64_t max_tokens = UINT64_MAX;          // the context ends generation in any case
  std::vector<std::string> stop;             // text that ends generation and is not emitted
  std::vector<int32_t> end_tokens;           // end it as those of the model do
  bool ignore_eos = false;                   // go on past end tokens, of either kind
  std::shared_ptr<const Grammar> grammar{};  // what the answer must match; it ends where nothing can follow
  Progress progress{};                       // of the prompt, in tokens; each call comes after about a second of work
};

struct ChatOptions {
  bool add_generation_prompt = true;  // end with the opening of the model's turn
  std::string tools{};                // a JSON array of tool definitions, or empty
  std::string variables{};            // a JSON object of further template variables, or empty
};

enum class FinishReason { kStop, kLength, kCancelled };  // an end token or stop string; a limit; the callback

struct GenerateResult {
  std::vector<int32_t> tokens;  // without the end token
  std::string text;
  FinishReason finish = FinishReason::kLength;
  uint64_t prompt_tokens = 0;
  double prompt_seconds = 0;
  double generate_seconds = 0;
};

struct ModelInfo {
  std::string architecture;
  uint64_t parameters = 0;
  uint64_t weight_bytes = 0;
  uint64_t vocab_size = 0;
  uint64_t max_context = 0;
  unsigned threads = 0;
  std::string device;  // "CPU, 8 threads", "NVIDIA H200"
};

class Engine {
 public:
  /// `path` is a UPG file or an uncompressed checkpoint directory. Throws Error.
  static std::shared_ptr<Engine> open(const std::string& path, const EngineOptions& options = {});
  ~Engine();

  const ModelInfo& info() const;

  /// Token ids of `text`; markup such as <|im_end|> becomes special tokens only if `parse_special`. `add_special` puts
  /// around it what the tokenizer puts around every text, such as a BOS; what render_chat() gives brings its own.
  std::vector<int32_t> tokenize(std::string_view text, bool parse_special = true, bool add_special = true) const;
  std::string detokenize(std::span<const int32_t> tokens) const;
  /// The bytes that one token stands for, perhaps half a character; empty for an unknown id.
  std::string token_bytes(int32_t token) const;

  /// Whether the model says how a conversation is written.
  bool has_chat_template() const;
  /// The prompt for a conversation. `messages`: a JSON array of {"role", "content", ...} as the chat API of OpenAI has
  /// them. Tokenize the result without `add_special`. Throws Error(kNotFound) where the model has no template,
  /// Error(kInvalidArgument) for JSON that is not valid and for what the template refuses.
  std::string render_chat(std::string_view messages, const ChatOptions& options = {}) const;

  /// What the model's generation_config.json asks for; greedy where it says do_sample is false.
  SamplingOptions default_sampling() const;
  /// Throws Error(kInvalidArgument) naming the option that is out of range, as Session::generate does.
  void check_sampling(const SamplingOptions& options) const;
  /// Tokens that end a generation.
  const std::vector<int32_t>& end_tokens() const;

  struct Impl;
  Impl& impl() const { return *impl_; }

 private:
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

struct SessionOptions {
  uint64_t context = 0;            // positions to hold; 0: the model's limit, at most 4,096
  std::string kv = "f16";          // cache type: "f16", "int8" or "f32"
  bool float_activations = false;  // products with trellis weights in float instead of int8: slower, exact
};

/// Sessions of one engine take turns: calls on the same engine must not overlap in time.
class Session {
 public:
  explicit Session(std::shared_ptr<Engine> engine, const SessionOptions& options = {});
  ~Session();
  Session(Session&&) noexcept;

  uint64_t context() const;  // positions it can hold
  uint64_t length() const;   // positions it holds
  /// The tokens at these positions, valid until the next call.
  std::span<const int32_t> tokens() const;

  /// Appends tokens. Returns the logits [vocab_size] after the last one, valid until the next
  /// call. Throws Error(kInvalidArgument) for an unknown id, no tokens, or more than the context has room for.
  std::span<const float> feed(std::span<const int32_t> tokens);

  /// The same with logits after each of the tokens [first, tokens.size()): row i belongs to token first + i.
  void feed_all(std::span<const int32_t> tokens, uint64_t first,
                const std::function<void(uint64_t token, std::span<const float> logits)>& row);

  /// Feeds `prompt` and generates; penalties count what the session held before as part of the prompt. `emit` gets text
  /// as it becomes certain: whole characters, never part of a stop string; returning false ends the generation. Throws
  /// Error(kCancelled) where options.progress asks for it: the session then holds the part of the prompt that was read.
  GenerateResult generate(std::span<const int32_t> prompt, const GenerateOptions& options,
                          const std::function<bool(std::string_view text)>& emit = {});

  /// Forgets all positions from `length` on. A model whose layers keep a window only may have to forget all. Returns
  /// the positions it holds then: `length` or 0.
  uint64_t rewind(uint64_t length);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace upg
