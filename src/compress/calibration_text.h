// The text that compression runs a model on.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "format/checkpoint.h"
#include "model/model.h"
#include "upg/compress.h"

namespace upg {

/// The mixed text that comes with the program (data/calibration.txt).
std::string_view bundled_calibration_text();

inline constexpr uint64_t kHeldOut = 4;  // windows that only measure the loss in the end

/// Windows of tokens spread evenly over the text that the options name, those held out last. Throws Error: kNotFound or
/// kIo for a file, kInvalidArgument where it is too short, kUnsupported where the checkpoint has no tokenizer.
std::vector<std::vector<int32_t>> calibration_sequences(const Checkpoint& checkpoint, const ModelShape& shape,
                                                        const CompressOptions& options);

}  // namespace upg
