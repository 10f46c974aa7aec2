// THE list of element types that GGUF files are written in, by ggml's names and numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace upg {

struct GgufType {
  std::string_view name;
  uint32_t id;         // ggml's number of the type
  uint32_t file_type;  // "general.file_type" of a file whose matrices are of it
  uint64_t block;      // elements that are stored together; a row is whole blocks
  uint64_t block_bytes;
  /// `values`: whole blocks, all finite; out has their bytes. Returns the index of the first value that does not fit,
  /// or values.size().
  size_t (*encode)(std::span<const float> values, std::byte* out);

  uint64_t bytes(uint64_t elements) const { return elements / block * block_bytes; }
};

std::span<const GgufType> gguf_types();
/// nullptr where there is no such type.
const GgufType* find_gguf_type(std::string_view name);

}  // namespace upg
