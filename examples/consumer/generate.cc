// Generates text with a model: generate MODEL PROMPT
#include <iostream>

#include "upg/engine.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: generate MODEL PROMPT\n";
    return 2;
  }
  try {
    const auto engine = upg::Engine::open(argv[1]);
    upg::Session session(engine);
    upg::GenerateOptions options;
    options.max_tokens = 32;
    options.sampling.temperature = 0;
    session.generate(engine->tokenize(argv[2]), options, [](std::string_view text) {
      std::cout << text << std::flush;
      return true;
    });
    std::cout << '\n';
  } catch (const upg::Error& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
