// run: a prompt in, text out. Text goes to stdout, statistics to stderr.
#include <fmt/format.h>

#include <memory>

#include "command.h"
#include "upg/engine.h"
#include "upg/kernels.h"

namespace upg::cli {
namespace {

struct Options {
  std::string model, prompt;
  uint64_t tokens = 128;
  double temperature = 0, top_p = 0, min_p = 0, repetition = 0, presence = 0, frequency = 0;
  uint32_t top_k = 0;
  uint64_t seed = 0;
  std::vector<std::string> stop, bias;
  SessionOptions session;
  EngineOptions engine;
  bool ignore_eos = false, json = false;
};

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

void generate(const Options& o, const CLI::App& command) {
  ProgressBar bar;
  EngineOptions engine_options = o.engine;
  engine_options.progress = bar.callback();
  const auto engine = Engine::open(o.model, engine_options);
  bar.clear();
  GenerateOptions options;
  SamplingOptions& s = options.sampling = engine->default_sampling();
  auto given = [&](const char* name) { return command.get_option(name)->count() > 0; };
  if (given("--temperature")) s.temperature = static_cast<float>(o.temperature);
  if (given("--top-k")) s.top_k = o.top_k;
  if (given("--top-p")) s.top_p = static_cast<float>(o.top_p);
  if (given("--min-p")) s.min_p = static_cast<float>(o.min_p);
  if (given("--repetition-penalty")) s.repetition_penalty = static_cast<float>(o.repetition);
  if (given("--presence-penalty")) s.presence_penalty = static_cast<float>(o.presence);
  if (given("--frequency-penalty")) s.frequency_penalty = static_cast<float>(o.frequency);
  for (const std::string& bias : o.bias) s.logit_bias.insert(parse_bias(bias));
  s.seed = o.seed;
  options.max_tokens = o.tokens;
  options.stop = o.stop;
  options.ignore_eos = o.ignore_eos;

  Session session(engine, o.session);
  const std::vector<int32_t> prompt = engine->tokenize(o.prompt);
  const GenerateResult result = session.generate(prompt, options, [&](std::string_view text) {
    if (!o.json) {
      std::fwrite(text.data(), 1, text.size(), stdout);
      std::fflush(stdout);
    }
    return !interrupted.load();
  });
  if (o.json) {
    print_json({{"text", result.text},
                {"tokens", result.tokens},
                {"finish_reason", name_of(result.finish)},
                {"prompt_tokens", result.prompt_tokens},
                {"prompt_seconds", result.prompt_seconds},
                {"generate_seconds", result.generate_seconds}});
  } else {
    fmt::print("\n");
    std::fflush(stdout);
    fmt::print(stderr, "prompt {} tokens, {:.1f} tokens/s; generated {} tokens, {:.1f} tokens/s; {} threads; {}\n",
               result.prompt_tokens, rate(result.prompt_tokens, result.prompt_seconds), result.tokens.size(),
               rate(result.tokens.size(), result.generate_seconds), engine->info().threads, name_of(result.finish));
  }
  if (interrupted) throw Error(ErrorCode::kCancelled, "interrupted");
}

}  // namespace

void add_run(CLI::App& command) {
  auto o = std::make_shared<Options>();
  command.add_option("MODEL", o->model, "UPG file or checkpoint directory")->required();
  command.add_option("-p,--prompt", o->prompt, "Text to continue")->required();
  command.add_option("-n,--tokens", o->tokens, "Tokens to generate, at most [128]");
  command.add_option("--temperature", o->temperature, "0: always the likeliest token [the model's own setting]");
  command.add_option("--top-k", o->top_k, "Sample among the k likeliest; 0: all [the model's]");
  command.add_option("--top-p", o->top_p, "Sample among the likeliest of this total probability [the model's]");
  command.add_option("--min-p", o->min_p, "Drop tokens below this share of the likeliest [the model's]");
  command.add_option("--repetition-penalty", o->repetition, "Above 1 discourages tokens seen before [the model's]");
  command.add_option("--presence-penalty", o->presence, "Subtracted from logits of generated tokens [0]");
  command.add_option("--frequency-penalty", o->frequency, "The same for each time it was generated [0]");
  command.add_option("--logit-bias", o->bias, "ID=BIAS, added to a token's logit; repeatable");
  command.add_option("--seed", o->seed, "The same seed gives the same text [0]");
  command.add_option("--stop", o->stop, "Text that ends generation; repeatable");
  command.add_flag("--ignore-eos", o->ignore_eos, "Go on past the end token");
  command.add_option("--context", o->session.context, "Positions to hold [the model's limit, at most 4096]");
  command.add_option("--kv", o->session.kv, "Cache of keys and values: f16, int8 or f32 [f16]");
  command.add_flag("--float-activations", o->session.float_activations,
                   "Exact products with compressed weights, slower");
  command.add_option("--threads", o->engine.threads, "Threads; 0: one for each core [0]");
  add_device_options(command, o->engine.device, o->engine.fusion);
  command.add_flag("--json", o->json, "Print text and statistics as JSON, at the end");
  command.footer(
      "Examples:\n"
      "  upg run demo.upg -p \"Once upon a time\"\n"
      "  upg run demo.upg -p \"The capital of France\" -n 16 --temperature 0\n"
      "  upg run models/demo -p \"A list:\" --stop \"\\n\\n\" --seed 7");
  command.callback([o, &command] { generate(*o, command); });
}

void add_kernels(CLI::App& command) {
  auto json = std::make_shared<bool>(false);
  command.add_flag("--json", *json, "Print as JSON");
  command.footer(
      "The first of a variant that can run is used. UPG_FORCE_KERNEL restricts the choice to kernels or instruction "
      "sets:\n"
      "  UPG_FORCE_KERNEL=avx2 upg kernels\n"
      "  UPG_FORCE_KERNEL=matmul_any_q8__ref upg run demo.upg -p Hello");
  command.callback([json] {
    if (*json) {
      nlohmann::ordered_json rows = nlohmann::ordered_json::array();
      for (const KernelReport& k : kernel_report())
        rows.push_back(
            {{"op", k.op}, {"variant", k.variant}, {"name", k.name}, {"selected", k.selected}, {"reason", k.reason}});
      return print_json(rows);
    }
    for (const KernelReport& k : kernel_report())
      fmt::print("{} {:<44} {}\n", k.selected ? '*' : ' ', k.name, k.selected ? "used" : k.reason);
  });
}

}  // namespace upg::cli
