// Encodes length-prefixed strings from stdin for tests/conformance_tokenizer.py: tokenizer_driver TOKENIZER_JSON
// [--plain]. For each string: a 32-bit count of ids, the ids, the 32-bit size of their decoded text, that text.
// Little-endian hosts.
// --plain encodes without special tokens around or inside the text.
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>

#include "text/tokenizer.h"
#include "upg/error.h"

namespace {

void write_block(const void* data, size_t count, size_t element_bytes) {
  const uint32_t size = static_cast<uint32_t>(count);
  std::fwrite(&size, sizeof size, 1, stdout);
  std::fwrite(data, element_bytes, count, stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: tokenizer_driver TOKENIZER_JSON [--plain] < STRINGS > IDS\n");
    return 2;
  }
  const bool plain = argc > 2 && std::string(argv[2]) == "--plain";
  try {
    std::ifstream file(argv[1], std::ios::binary);
    const std::string json{std::istreambuf_iterator<char>(file), {}};
    const auto tokenizer = upg::Tokenizer::from_json(json, argv[1]);
    std::string text;
    uint32_t size = 0;
    while (std::fread(&size, sizeof size, 1, stdin) == 1) {
      text.resize(size);
      if (std::fread(text.data(), 1, size, stdin) != size) return 1;
      const auto ids = tokenizer->encode(text, !plain, !plain);
      const std::string decoded = tokenizer->decode(ids);
      write_block(ids.data(), ids.size(), sizeof(int32_t));
      write_block(decoded.data(), decoded.size(), 1);
    }
  } catch (const upg::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
