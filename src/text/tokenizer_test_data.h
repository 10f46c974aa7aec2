// For tests: the tokenizers in the repository, and a small one to change at will.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "text/pretokenizer.h"
#include "text/tokenizer.h"
#include "text/unicode.h"
#include "upg/error.h"

namespace upg {

inline std::string read_test_file(const std::string& path) {
  std::ifstream file(std::string(UPG_SOURCE_DIR) + "/" + path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

/// A tokenizer stored as tests/data/tokenizers/README.md says.
inline std::string read_compact_tokenizer(const std::string& name) {
  const std::string base = "tests/data/tokenizers/" + name;
  nlohmann::json root = nlohmann::json::parse(read_test_file(base + ".tokenizer.json"));
  nlohmann::json& vocabulary = root["model"]["vocab"];
  nlohmann::json& merges = root["model"]["merges"];
  int32_t id = 0;
  for (uint32_t c = 0; c < 0x200; ++c) {
    std::string character;
    append_utf8(character, c);
    if (byte_level_byte(c) >= 0) vocabulary[character] = id++;
  }
  const std::string lines = read_test_file(base + ".merges.txt");
  for (size_t begin = 0, end; (end = lines.find('\n', begin)) != std::string::npos; begin = end + 1) {
    std::string merge = lines.substr(begin, end - begin);
    merges.push_back(merge);
    vocabulary[merge.erase(merge.find(' '), 1)] = id++;
  }
  return root.dump();
}

/// The byte alphabet (ids as the bytes), "ab" 256, "abc" 257, "Ġa" 258, and the special token "<s>" 259.
inline nlohmann::json small_tokenizer() {
  nlohmann::json vocabulary;
  for (uint32_t b = 0; b < 256; ++b) {
    std::string character;
    append_utf8(character, byte_level_character(static_cast<uint8_t>(b)));
    vocabulary[character] = b;
  }
  vocabulary.update({{"ab", 256}, {"abc", 257}, {"\u0120a", 258}});
  return {
      {"version", "1.0"},
      {"added_tokens", {{{"id", 259}, {"content", "<s>"}, {"normalized", false}, {"special", true}}}},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", {"a b", "ab c", "\u0120 a"}}}},
  };
}

/// "a" 0, "b" 1, "ab" 2, "\u2581" 3, "\u2581a" 4, "<unk>" 5, "<s>" 6, the bytes <0x00> to <0xFF> from 7 on; spaces are
/// U+2581 and one goes before each text.
inline nlohmann::json small_byte_fallback_tokenizer() {
  nlohmann::json vocabulary = {{"a", 0}, {"b", 1}, {"ab", 2}, {"\u2581", 3}, {"\u2581a", 4}, {"<unk>", 5}, {"<s>", 6}};
  for (int b = 0; b < 256; ++b) vocabulary[fmt::format("<0x{:02X}>", b)] = 7 + b;
  return {
      {"version", "1.0"},
      {"added_tokens", {{{"id", 6}, {"content", "<s>"}, {"normalized", false}, {"special", true}}}},
      {"normalizer", nlohmann::json::parse(R"({"type": "Sequence", "normalizers": [
           {"type": "Prepend", "prepend": "\u2581"},
           {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]})")},
      {"decoder", nlohmann::json::parse(R"({"type": "Sequence", "decoders": [
           {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
           {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})")},
      {"model",
       {{"type", "BPE"},
        {"unk_token", "<unk>"},
        {"fuse_unk", true},
        {"byte_fallback", true},
        {"vocab", vocabulary},
        {"merges", {"\u2581 a", "a b"}}}},
  };
}

inline std::unique_ptr<Tokenizer> tokenizer_of(const nlohmann::json& root) {
  return Tokenizer::from_json(root.dump(), "t.json");
}

/// The error that reading `json` gives; nullopt if it gives none.
inline std::optional<Error> reading_error(const std::string& json) {
  try {
    Tokenizer::from_json(json, "t.json");
  } catch (const Error& error) {
    return error;
  }
  return std::nullopt;
}

}  // namespace upg
