#include "compress/calibration_text.h"

#include <algorithm>

#include "base/checked.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "text/tokenizer.h"
#include "text/tokenizer_source.h"

namespace upg {

extern const unsigned char calibration_text[];  // data/calibration.txt, by cmake/embed.cmake
extern const unsigned long calibration_text_size;

namespace {

constexpr uint64_t kLength = 512;  // tokens of a window
constexpr uint64_t kFewest = 8;    // windows: some gather, some measure

}  // namespace

std::string_view bundled_calibration_text() {
  return {reinterpret_cast<const char*>(calibration_text), calibration_text_size};
}

std::vector<std::vector<int32_t>> calibration_sequences(const Checkpoint& checkpoint, const ModelShape& shape,
                                                        const CompressOptions& options) {
  const std::string json = tokenizer_json(checkpoint.texts(), checkpoint.dir());
  if (json.empty())
    fail(ErrorCode::kUnsupported,
         "{} has no tokenizer.json, which calibration needs; --calibrate none compresses without", checkpoint.dir());
  if (options.calibration_tokens == 0)
    fail(ErrorCode::kInvalidArgument, "calibration tokens is 0; --calibrate none compresses without calibration");
  const bool bundled = options.calibrate == "default";
  const std::string text = bundled ? std::string(bundled_calibration_text()) : read_file(options.calibrate);
  const auto tokenizer = Tokenizer::from_json(json, checkpoint.dir() + ": tokenizer.json");
  const std::vector<int32_t> tokens = tokenizer->encode(text, false, false);
  for (int32_t token : tokens)
    if (token < 0 || static_cast<uint64_t>(token) >= shape.vocab_size)
      fail(ErrorCode::kInvalidFile, "{}: its tokenizer gives token {}, the model knows {}", checkpoint.dir(), token,
           shape.vocab_size);
  const uint64_t length = std::min(kLength, shape.max_context);
  const uint64_t have = tokens.size() / length;
  if (have < kFewest)
    fail(ErrorCode::kInvalidArgument, "the calibration text {} has {} tokens; at least {} are needed",
         bundled ? "that comes with the program" : options.calibrate, tokens.size(), kFewest * length);
  const uint64_t wanted = std::clamp(ceil_div(options.calibration_tokens, length), kFewest, have);
  std::vector<std::vector<int32_t>> sequences, held_out;
  for (uint64_t i = 0; i < wanted; ++i) {
    const auto begin = tokens.begin() + static_cast<ptrdiff_t>(i * have / wanted * length);
    const bool hold = i * kHeldOut / wanted != (i + 1) * kHeldOut / wanted;
    (hold ? held_out : sequences).emplace_back(begin, begin + static_cast<ptrdiff_t>(length));
  }
  sequences.insert(sequences.end(), held_out.begin(), held_out.end());
  return sequences;
}

}  // namespace upg
