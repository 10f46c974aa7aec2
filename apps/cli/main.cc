// upg: the command line. Parses, calls the library, prints; errors are caught here and nowhere else.
#include <cstdio>

#include "command.h"
#include "upg/error.h"

namespace upg::cli {
namespace {

constexpr Command kCommands[] = {
    {"compress", "Compress a Hugging Face checkpoint into one UPG file", add_compress},
    {"convert", "Rewrite a file of an older format, weight for weight", add_convert},
    {"pull", "Fetch a model by its name from a hub", add_pull},
    {"inspect", "Show what a model is made of: tensors, codecs, bits, errors", add_inspect},
    {"verify", "Check a UPG file: structure and checksums", add_verify},
    {"decompress", "Turn a UPG file back into a dense checkpoint", add_decompress},
    {"export", "Write a model as a file of another program: GGUF, for llama.cpp", add_export},
    {"run", "Continue a text", add_run},
    {"chat", "Talk with a model", add_chat},
    {"serve", "Serve models over HTTP, to clients of OpenAI's and Anthropic's APIs", add_serve},
    {"eval", "Measure perplexity, divergence from a reference, or accuracy on a task", add_eval},
    {"bench", "Measure speed, against how fast this machine reads memory", add_bench},
    {"kernels", "List the kernels of this build and which this machine uses", add_kernels},
};

// Exit statuses: 0 done, 1 an error of the work, 2 a mistake in the command line, 130 interrupted.
int run(int argc, char** argv) {
  CLI::App app(
      "Shrink a large language model ten to one and run it.\n"
      "MODEL is a UPG file, an uncompressed checkpoint directory, or the name of either on a hub: ORG/NAME.",
      "upg");
  app.set_version_flag("--version", "upg " UPG_VERSION);
  app.require_subcommand(1);
  app.footer(
      "Examples:\n"
      "  upg compress models/demo -o demo.upg\n"
      "  upg run demo.upg -p \"Once upon a time\"\n"
      "  upg chat demo.upg\n"
      "  upg pull microsoft/phi-4\n"
      "  upg serve demo.upg\n"
      "  upg eval demo.upg --text wiki.test.raw --reference models/demo\n"
      "`upg COMMAND --help` has the options of each.");
  for (const Command& command : commands()) {
    CLI::App& sub = *app.add_subcommand(command.name, command.summary);
    command.add(sub);
    for (CLI::Option* option : sub.get_options())  // CLI11 would take -1 for 2^64 - 1
      if (option->get_type_name() == "UINT") option->check(CLI::NonNegativeNumber);
  }
  try {
    app.parse(argc, argv);
    if (std::fflush(stdout) != 0) throw Error(ErrorCode::kIo, "cannot write to stdout: is the disk full?");
    return 0;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kCancelled) {
      std::fprintf(stderr, "upg: interrupted\n");
      return 130;
    }
    std::fprintf(stderr, "upg: %s\n", error.what());
    return 1;
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "upg: out of memory\n");
    return 1;
  } catch (const std::exception& error) {  // of other libraries: stdout that takes no more, for instance
    std::fprintf(stderr, "upg: %s\n", error.what());
    return 1;
  }
}

}  // namespace

std::span<const Command> commands() { return kCommands; }

}  // namespace upg::cli

int main(int argc, char** argv) {
  upg::cli::catch_interrupts();
  return upg::cli::run(argc, argv);
}
