// run: a prompt in, text out. Text goes to stdout, statistics to stderr.
#include <fmt/format.h>

#include <memory>

#include "command.h"
#include "sampling_options.h"
#include "upg/engine.h"
#include "upg/kernels.h"

namespace upg::cli {
namespace {

struct Options {
  ModelArguments model;
  SamplingArguments sampling;
  std::string prompt;
  bool json = false;
};

void generate(const Options& o, const CLI::App& command) {
  const auto engine = open_engine(o.model);
  const GenerateOptions options = generate_options(*engine, o.sampling, command);
  Session session(engine, o.model.session);
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
  add_model_argument(command, o->model);
  command.add_option("-p,--prompt", o->prompt, "Text to continue")->required();
  add_sampling_options(command, o->sampling, 128);
  add_session_options(command, o->model);
  command.add_flag("--json", o->json, "Print text and statistics as JSON, at the end");
  command.footer(
      "Examples:\n"
      "  upg run demo.upg -p \"Once upon a time\"\n"
      "  upg run demo.upg -p \"The capital of France\" -n 16 --temperature 0\n"
      "  upg run models/demo -p \"A list:\" --stop \"\\n\\n\" --seed 7\n"
      "  upg run demo.upg -p \"The year was \" --regex \"[12][0-9]{3}\"\n"
      "  upg run demo.upg -p \"A person as JSON: \" --json-schema person.json -n 500");
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
