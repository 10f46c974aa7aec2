// A byte that chooses the file's name and family, then a vocabulary file of that name: only upg::Error may come out.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "text/tokenizer.h"
#include "text/tokenizer_source.h"
#include "upg/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  constexpr const char* kFiles[] = {"tokenizer.model", "spiece.model", "qwen.tiktoken", "cl100k_base.tiktoken"};
  constexpr const char* kFamilies[] = {R"({"model_type": "llama"})", R"({"model_type": "t5"})"};
  upg::ModelTexts texts;
  texts.vocabulary.assign(reinterpret_cast<const char*>(data) + 1, size - 1);
  texts.vocabulary_file = kFiles[data[0] % 4];
  texts.config = kFamilies[data[0] / 4 % 2];
  if (data[0] / 8 % 2 == 1) texts.tokenizer_config = R"({"legacy": false, "add_eos_token": true})";
  try {
    const auto tokenizer = upg::Tokenizer::from_json(upg::tokenizer_json(texts, "input"), "input");
    for (const std::string_view text : {"the  \xe2\x96\x81history<s> \xc3\xa9 12\n", "\xf0\x9f\xa6\x99 a"})
      for (const int32_t id : tokenizer->encode(text))
        if (id < 0 || id >= tokenizer->vocab_size()) std::abort();
  } catch (const upg::Error&) {
  }
  return 0;
}
