#include "sampling_options.h"

#include <fmt/format.h>

#include <fstream>
#include <iterator>
#include <utility>

#include "upg/grammar.h"

namespace upg::cli {
namespace {

// "ID=BIAS" of --logit-bias.
std::pair<int32_t, float> parse_bias(const std::string& text) {
  const size_t equals = text.find('=');
  try {
    size_t id_end = 0, bias_end = 0;
    if (equals != std::string::npos) {
      const int id = std::stoi(text.substr(0, equals), &id_end);
      const float bias = std::stof(text.substr(equals + 1), &bias_end);
      if (id_end == equals && bias_end == text.size() - equals - 1) return {id, bias};
    }
  } catch (const std::exception&) {
  }
  throw Error(ErrorCode::kInvalidArgument, fmt::format("--logit-bias {}: must be ID=BIAS, as in 13=-2.5", text));
}

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(file), {});
  if (!file.is_open() || file.bad()) throw Error(ErrorCode::kIo, fmt::format("{}: cannot be read", path));
  return text;
}

std::shared_ptr<const Grammar> compile(const Engine& engine, const std::string& option, const GrammarSource& source) {
  try {
    return Grammar::compile(engine, source);
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: {}", option, error.what()));
  }
}

}  // namespace

void add_sampling_options(CLI::App& command, SamplingArguments& a, uint64_t tokens) {
  a.tokens = tokens;
  command.add_option("-n,--tokens", a.tokens, fmt::format("Tokens to generate, at most [{}]", tokens));
  command.add_option("--temperature", a.temperature, "0: always the likeliest token [the model's own setting]");
  command.add_option("--top-k", a.top_k, "Sample among the k likeliest; 0: all [the model's]");
  command.add_option("--top-p", a.top_p, "Sample among the likeliest of this total probability [the model's]");
  command.add_option("--min-p", a.min_p, "Drop tokens below this share of the likeliest [the model's]");
  command.add_option("--repetition-penalty", a.repetition, "Above 1 discourages tokens seen before [the model's]");
  command.add_option("--presence-penalty", a.presence, "Subtracted from logits of generated tokens [0]");
  command.add_option("--frequency-penalty", a.frequency, "The same for each time it was generated [0]");
  command.add_option("--logit-bias", a.bias, "ID=BIAS, added to a token's logit; repeatable");
  command.add_option("--seed", a.seed, "The same seed gives the same text [0]");
  command.add_option("--stop", a.stop, "Text that ends generation; repeatable");
  command.add_flag("--ignore-eos", a.ignore_eos, "Go on past the end token");
  auto* schema =
      command.add_option("--json-schema", a.json_schema, "File with a JSON schema that the text must satisfy");
  auto* grammar = command.add_option("--grammar", a.grammar, "File with a grammar (EBNF, GBNF) that it must match");
  auto* regex = command.add_option("--regex", a.regex, "Regular expression that the whole text must match");
  schema->excludes(grammar)->excludes(regex);
  grammar->excludes(regex);
}

GenerateOptions generate_options(const Engine& engine, const SamplingArguments& a, const CLI::App& command) {
  GenerateOptions options;
  SamplingOptions& s = options.sampling = engine.default_sampling();
  auto given = [&](const char* name) { return command.get_option(name)->count() > 0; };
  if (given("--temperature")) s.temperature = static_cast<float>(a.temperature);
  if (given("--top-k")) s.top_k = a.top_k;
  if (given("--top-p")) s.top_p = static_cast<float>(a.top_p);
  if (given("--min-p")) s.min_p = static_cast<float>(a.min_p);
  if (given("--repetition-penalty")) s.repetition_penalty = static_cast<float>(a.repetition);
  if (given("--presence-penalty")) s.presence_penalty = static_cast<float>(a.presence);
  if (given("--frequency-penalty")) s.frequency_penalty = static_cast<float>(a.frequency);
  for (const std::string& bias : a.bias) s.logit_bias.insert(parse_bias(bias));
  s.seed = a.seed;
  options.max_tokens = a.tokens;
  options.stop = a.stop;
  options.ignore_eos = a.ignore_eos;
  if (given("--json-schema"))
    options.grammar =
        compile(engine, "--json-schema " + a.json_schema, GrammarSource::json_schema(read_text(a.json_schema)));
  if (given("--grammar"))
    options.grammar = compile(engine, "--grammar " + a.grammar, GrammarSource::ebnf(read_text(a.grammar)));
  if (given("--regex")) options.grammar = compile(engine, "--regex", GrammarSource::regex(a.regex));
  return options;
}

void add_model_argument(CLI::App& command, ModelArguments& a) {
  command.add_option("MODEL", a.model, kModelHelp)->required();
}

void add_session_options(CLI::App& command, ModelArguments& a) {
  command.add_option("--context", a.session.context, "Positions to hold [the model's limit, at most 4096]");
  command.add_option("--kv", a.session.kv, "Cache of keys and values: f16, int8 or f32 [f16]");
  command.add_flag("--float-activations", a.session.float_activations,
                   "Exact products with compressed weights, slower");
  command.add_option("--threads", a.engine.threads, "Threads; 0: one for each core [0]");
  add_device_options(command, a.engine.device, a.engine.fusion, a.engine.gpu_layers);
  add_hub_options(command, a.hub);
}

std::shared_ptr<Engine> open_engine(const ModelArguments& a) {
  const std::string path = model_path(a.model, a.hub);
  ProgressBar bar;
  EngineOptions options = a.engine;
  options.progress = bar.callback();
  return Engine::open(path, options);
}

const char* name_of(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  return "";
}

double rate(uint64_t tokens, double seconds) { return seconds > 0 ? static_cast<double>(tokens) / seconds : 0; }

}  // namespace upg::cli
