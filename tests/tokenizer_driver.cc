// Encodes length-prefixed strings from stdin for tests/conformance_tokenizer.py: tokenizer_driver TOKENIZER [--plain]
// [MODEL_TYPE]. TOKENIZER is a tokenizer.json, or a SentencePiece model or rank file of a model of that type. For each
// string: a 32-bit count of ids, the ids, the 32-bit size of their decoded text, that text. Little-endian hosts.
// --plain encodes without special tokens around or inside the text.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "text/tokenizer.h"
#include "text/tokenizer_source.h"
#include "upg/error.h"

namespace {

std::string made_json(const std::string& contents, const std::string& name, const std::string& model_type) {
  upg::ModelTexts texts;
  texts.config = R"({"model_type": ")" + model_type + "\"}";
  texts.vocabulary = contents;
  texts.vocabulary_file = name;
  return upg::tokenizer_json(texts, name);
}

void write_block(const void* data, size_t count, size_t element_bytes) {
  const uint32_t size = static_cast<uint32_t>(count);
  std::fwrite(&size, sizeof size, 1, stdout);
  std::fwrite(data, element_bytes, count, stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: tokenizer_driver TOKENIZER [--plain|--special] [MODEL_TYPE] < STRINGS > IDS\n");
    return 2;
  }
  const std::filesystem::path path = argv[1];
  const bool plain = argc > 2 && std::string(argv[2]) == "--plain";
  try {
    std::ifstream file(argv[1], std::ios::binary);
    const std::string contents{std::istreambuf_iterator<char>(file), {}};
    const auto tokenizer = upg::Tokenizer::from_json(
        path.extension() == ".json" ? contents : made_json(contents, path.filename(), argc > 3 ? argv[3] : ""),
        argv[1]);
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
