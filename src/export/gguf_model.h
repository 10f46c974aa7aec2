// A Decoder in GGUF's words, as llama.cpp reads them: metadata, and tensors under its names and in its order of rows.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "export/gguf_families.h"
#include "export/gguf_writer.h"
#include "model/decoder.h"

namespace upg {

struct GgufSource {
  const Decoder& decoder;
  const GgufFamily& family;
  std::string where;               // names the model in errors
  std::vector<std::string> notes;  // what is not as in the source
};

/// Throws Error(kUnsupported) naming what llama.cpp's code for the family does not do.
void check_gguf(const GgufSource& source);

/// Everything under "<architecture>.".
GgufMetadata gguf_hyperparameters(GgufSource& source);

/// What llama.cpp multiplies queries by less than the model does, apart from what the file can say: gguf_tensors()
/// puts it into the weights.
float gguf_query_scale(const GgufSource& source, const AttentionShape& shape);

/// `type`: of the matrices. `release` is called with the name of a stored weight that has been read.
std::vector<GgufTensor> gguf_tensors(GgufSource& source, const GgufType& type,
                                     const std::function<void(const std::string&)>& release);

}  // namespace upg
