// What a codec is: how one weight matrix is stored as named tensors, and back. The list of codecs is codec_table.h.
// Speed is not this layer's business: decode here is scalar and written to be read; src/kernels has the fast paths.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/tensor_view.h"

namespace upg {

struct Codec;

/// A matrix [rows, cols] in some codec. `layout` points to the codec's layout struct (codec/layout/<codec>.h), whose
/// own pointers lie in memory that must outlive the Matrix (a mapped file, or the EncodedMatrix it was opened from).
struct Matrix {
  const Codec* codec = nullptr;
  uint64_t rows = 0;
  uint64_t cols = 0;
  std::shared_ptr<const void> layout;
};

/// The stored tensors of one matrix, owned. Names are suffixes: "values", "codes", ...; "" for a dense tensor.
struct EncodedMatrix {
  struct Component {
    std::string suffix;
    DType dtype;
    std::vector<uint64_t> shape;
    std::vector<std::byte> data;
  };
  const Codec* codec = nullptr;
  uint64_t rows = 0;
  uint64_t cols = 0;
  std::vector<Component> components;
  /// Sum over rows of (original - decoded) H (original - decoded)^T, H the damped moments, where the encoder used them.
  double weighted_error = 0;

  uint64_t bytes() const;
};

/// Where an encoder reads its weights: fills `out` [cols] with row `row`, all finite. Called from several threads at
/// once.
using RowSource = std::function<void(uint64_t row, std::span<float> out)>;

/// Calls f(0) ... f(n - 1), perhaps side by side.
using ForEach = std::function<void(uint64_t n, const std::function<void(uint64_t)>& f)>;

/// Second moments of a linear layer's input x [cols]: E[x x^T].
struct Moments {
  uint64_t cols = 0;
  std::vector<float> values;     // [cols, cols], symmetric; only the lower triangle is read
  std::shared_ptr<void> held{};  // where EncodeOptions::device has them instead, what it knows them by
};

class TrellisDevice;  // codec/trellis_device.h

struct EncodeOptions {
  double density = 0.1;  // sparse codecs: share of weights kept
  /// Of the input: error counts by what it does to the product. nullptr: every weight alike. Not all codecs make use
  /// of them.
  const Moments* moments = nullptr;
  double damping = 0.01;            // added to their diagonal, in units of its mean
  uint64_t residual_bytes = 0;      // trellis codecs: at most so many for a residual plane of outliers; 0: none
  ForEach parallel{};               // empty: serially
  TrellisDevice* device = nullptr;  // does the trellis codecs' search instead of the CPU; others take no notice

  /// f(0) ... f(n - 1), in no particular order.
  void for_each(uint64_t n, const std::function<void(uint64_t)>& f) const {
    if (parallel) return parallel(n, f);
    for (uint64_t i = 0; i < n; ++i) f(i);
  }
};

struct Codec {
  std::string_view id;          // stable name, as in the file's metadata and --codec
  uint32_t version;             // of the byte layout; a reader refuses versions it does not know
  std::string_view since;       // the first version of the UPG format that has it: "2.0", "3.0"
  std::string_view summary;     // one line for --help and docs
  std::string_view activation;  // what its matrix-vector kernels multiply with: "q8" (int8 in blocks of 32) or "f32"

  /// Bytes that encode() will produce for a matrix of this shape. `density` matters to sparse codecs only (expected
  /// value).
  uint64_t (*stored_bytes)(uint64_t rows, uint64_t cols, double density);
  EncodedMatrix (*encode)(uint64_t rows, uint64_t cols, const RowSource& source, const EncodeOptions& options);

  /// Checks every size, count and index of the stored tensors, so that decode and kernels may trust them.
  /// `parts` have their suffix as name. Throws Error(kInvalidFile); messages begin with `name`, the matrix's name.
  Matrix (*open)(std::string_view name, uint64_t rows, uint64_t cols, std::span<const TensorView> parts);

  /// One row to float: out [cols]. The definition of what the stored bytes mean; bit-exact on every platform.
  void (*decode_row)(const Matrix& matrix, uint64_t row, float* out);

  bool uses_moments = false;  // encode() makes use of EncodeOptions::moments
};

/// Opens an encoded matrix in place: for tests, and for engines that encode in memory.
Matrix open_encoded(const EncodedMatrix& encoded);

/// The part with this suffix, checked for dtype, shape and count of bytes; throws Error(kInvalidFile) naming matrix,
/// part and both shapes.
const TensorView& require_part(std::string_view name, std::span<const TensorView> parts, std::string_view suffix,
                               DType dtype, std::span<const uint64_t> shape);
/// The same where the part may be absent: nullptr.
const TensorView* find_part(std::span<const TensorView> parts, std::string_view suffix);
/// Throws Error(kInvalidFile) naming matrix and part where its data are not aligned to its elements.
void require_aligned(std::string_view name, const TensorView& part);

}  // namespace upg
