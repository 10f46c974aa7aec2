// Files of earlier formats to the present one, weight for weight.
#pragma once

#include <string>
#include <vector>

#include "upg/error.h"
#include "upg/inspect.h"
#include "upg/progress.h"

namespace upg {

struct ConvertOptions {
  std::string to{};  // "2.0" or "3.0"; empty: one version up from the source's
  // The directory of the original checkpoint, for what a 1.0 file lacks: configuration, tokenizer, weights that the
  // prototype did not compress. Empty: none.
  std::string checkpoint{};
  Progress progress{};
};

struct ConvertReport {
  std::string from;   // "1.0", "2.0" or "3.0"
  std::string form;   // what the source is: "a pickle in a ZIP archive"
  ModelReport model;  // of the new file; its format says which version it is
  struct Note {
    std::string tensor;
    std::string what;  // how it differs from plain rewriting: "taken from the checkpoint"
  };
  std::vector<Note> notes;
  double seconds = 0;
};

/// Rewrites the model file `source` as `target`, which appears only when it is whole and can be run. Every weight of
/// the new file decodes to the same bits as the old one's. A 1.0 file, which is a Python pickle, is read without
/// running anything in it: names outside a short list are refused. docs/migration.md has what is read. Throws Error:
/// kUnsupported for what a pickle may not hold, naming it and the byte, and for versions and tensors that cannot be
/// converted; kInvalidFile for a damaged file; kInvalidArgument for options that do not fit the source.
ConvertReport convert(const std::string& source, const std::string& target, const ConvertOptions& options = {});

}  // namespace upg
