// What torch.save wrote before it wrote ZIP archives, and still writes for a storage within a plain pickle: five
// pickles, then the storages' bytes.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "pickle/value.h"
#include "pickle/zip_archive.h"

namespace upg::pickle {

struct TorchSequence {
  Tree tree;  // the object that was saved
  std::map<std::string, std::span<const std::byte>, std::less<>> storages;
};

/// Whether the bytes begin with torch's magic number.
bool is_torch_sequence(std::span<const std::byte> bytes);

/// Throws as read_pickle does.
TorchSequence read_torch_sequence(std::span<const std::byte> bytes, const std::string& where);

/// A sequence that holds nothing but a storage: its bytes, and the type of its elements.
Bytes read_torch_storage(std::span<const std::byte> bytes, const std::string& where, std::optional<DType>& dtype);

}  // namespace upg::pickle
