// A tokenizer.json and, after the first zero byte, a text to encode and decode: only upg::Error may come out.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "text/detokenizer.h"
#include "text/tokenizer.h"
#include "upg/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = input.find('\0');
  const std::string_view text = zero == std::string_view::npos ? "a b1" : input.substr(zero + 1);
  try {
    const auto tokenizer = upg::Tokenizer::from_json(input.substr(0, zero), "input");
    for (const bool parse_special : {true, false}) {
      const auto ids = tokenizer->encode(text, parse_special, parse_special);
      upg::StreamDetokenizer stream(*tokenizer, false);
      std::string streamed;
      for (const int32_t id : ids) {
        if (id < 0 || id >= tokenizer->vocab_size()) std::abort();
        streamed += stream.push(id);
      }
      if (streamed + stream.finish() != tokenizer->decode(ids)) std::abort();
    }
  } catch (const upg::Error&) {
  }
  return 0;
}
