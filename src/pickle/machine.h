// Reads a Python pickle of protocol 0 to 5 into a tree of values. It runs nothing: opcodes are decoded, names outside
// the list of globals.h are refused, and what the others would make is kept as the name with its arguments.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "pickle/value.h"

namespace upg::pickle {

struct ReadOptions {
  bool persistent_ids = false;  // as torch.save writes them, for storages
  /// Protocol 5's buffers that were written elsewhere, in order.
  std::span<const std::span<const std::byte>> buffers{};
};

/// Reads up to the STOP of the first pickle in `bytes`, which must outlive the tree. `where` begins messages. Time and
/// memory are bounded by the number of bytes (a few times that, and 100 MB). Throws Error(kInvalidFile) for what is not
/// a pickle, and Error(kUnsupported) for what names or calls something outside the list, both with the byte at fault.
Tree read_pickle(std::span<const std::byte> bytes, std::string where, const ReadOptions& options = {});

}  // namespace upg::pickle
