#include "upg/engine.h"

#include "base/error.h"
#include "engine/device_table.h"
#include "engine/engine_impl.h"
#include "engine/grammar_cache.h"
#include "kernels/kernel.h"
#include "model/arch_table.h"
#include "text/sampler.h"
#include "text/tokenizer_source.h"

namespace upg {
namespace {

// generation_config.json, reduced to what the engine uses. Fields of the wrong type are refused by name.
void read_generation_config(const std::string& text, const std::string& where, Engine::Impl& impl) {
  if (text.empty()) return;
  const ConfigReader config(text, where + ": generation_config.json");
  SamplingOptions& s = impl.sampling;
  s.temperature = static_cast<float>(config.number("temperature", 0, 1e6, 1.0));
  s.top_k = static_cast<uint32_t>(config.integer("top_k", 0, UINT32_MAX, 0));
  s.top_p = static_cast<float>(config.number("top_p", 0, 1, 1.0));
  s.min_p = static_cast<float>(config.number("min_p", 0, 1, 0.0));
  s.repetition_penalty = static_cast<float>(config.number("repetition_penalty", 0, 1e6, 1.0));
  if (!config.boolean("do_sample", false)) s.temperature = 0;
}

}  // namespace

Engine::Impl::Impl(const std::string& path, const EngineOptions& options)
    : weights((device_options(find_device(options.device), options), path)),
      context((kernels::check_forced_kernels(), options.threads)),
      model(load_model(weights)),  // what cannot run is refused before gigabytes are read
      device((weights.read_ahead(options.progress), find_device(options.device))
                 .open(*model, context, device_options(find_device(options.device), options))) {
  const ModelTexts& texts = weights.texts();
  info.architecture = ConfigReader(texts.config, path + ": config.json").architecture();
  for (const WeightInfo& weight : weights.list()) {
    uint64_t elements = 1;
    for (uint64_t dim : weight.shape) elements *= dim;
    info.parameters += elements;
    info.weight_bytes += weight.stored_bytes;
  }
  info.vocab_size = model->shape().vocab_size;
  info.max_context = model->shape().max_context;
  info.threads = context.pool.size();
  info.device = device->description();
  read_generation_config(texts.generation_config, path, *this);
  end_tokens = upg::end_tokens(texts, path, info.vocab_size);
  ModelTexts chat;
  chat.tokenizer_config = texts.tokenizer_config;
  chat.chat_template = options.chat_template.empty() ? texts.chat_template : options.chat_template;
  chat_template = ChatTemplate::from_texts(chat, path);
  const std::string json = tokenizer_json(texts, path);
  if (json.empty()) return;
  tokenizer = Tokenizer::from_json(json, path + ": tokenizer.json");
  grammars = std::make_unique<GrammarCache>(*tokenizer, info.vocab_size, end_tokens);
}

Engine::Impl::~Impl() = default;

const Tokenizer& Engine::Impl::require_tokenizer() const {
  if (!tokenizer) fail(ErrorCode::kNotFound, "{}: has no tokenizer.json", weights.path());
  return *tokenizer;
}

std::shared_ptr<Engine> Engine::open(const std::string& path, const EngineOptions& options) {
  return std::shared_ptr<Engine>(new Engine(std::make_unique<Impl>(path, options)));
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

const ModelInfo& Engine::info() const { return impl_->info; }
SamplingOptions Engine::default_sampling() const { return impl_->sampling; }
void Engine::check_sampling(const SamplingOptions& options) const { Sampler(options, info().vocab_size); }
const std::vector<int32_t>& Engine::end_tokens() const { return impl_->end_tokens; }

std::vector<int32_t> Engine::tokenize(std::string_view text, bool parse_special, bool add_special) const {
  return impl_->require_tokenizer().encode(text, add_special, parse_special);
}

std::string Engine::token_bytes(int32_t token) const {
  return std::string(impl_->require_tokenizer().token_bytes(token));
}

std::string Engine::detokenize(std::span<const int32_t> tokens) const {
  return impl_->require_tokenizer().decode(tokens);
}

bool Engine::has_chat_template() const { return impl_->chat_template != nullptr; }

std::string Engine::render_chat(std::string_view messages, const ChatOptions& options) const {
  if (!has_chat_template())
    fail(ErrorCode::kNotFound, "{}: has no chat template, so it is no chat model; give it a plain prompt",
         impl_->weights.path());
  return impl_->chat_template->render({.messages = messages,
                                       .tools = options.tools,
                                       .variables = options.variables,
                                       .add_generation_prompt = options.add_generation_prompt});
}

}  // namespace upg
