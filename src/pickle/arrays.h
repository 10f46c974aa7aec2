// NumPy arrays, torch tensors and sparse matrices out of a pickle's tree, as views of bytes.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "pickle/value.h"
#include "pickle/zip_archive.h"

namespace upg::pickle {

struct Array {
  DType dtype = DType::kU8;
  bool swapped = false;  // elements are big-endian
  bool fortran = false;  // the first index runs fastest
  std::vector<uint64_t> shape;
  Bytes bytes;  // exactly product(shape) elements

  uint64_t elements() const { return bytes.data.size() / dtype_info(dtype).bytes; }
};

/// A compressed sparse row matrix, as it was pickled: nothing is checked but that these are arrays.
struct Csr {
  uint64_t rows = 0;
  uint64_t cols = 0;
  Array values;
  Array columns;
  Array row_pointers;
};

/// Gives the bytes of a tensor's storage by the key in its persistent id.
using Storages = std::function<Bytes(std::string_view key)>;

/// Reads values of one tree. `what`, in every function, begins messages: "layer lm_head.weight: scales". Errors are
/// kInvalidFile for what contradicts itself and kUnsupported, by name, for types and orders that are not read.
class ArrayReader {
 public:
  /// All must outlive the object.
  ArrayReader(const Tree& tree, const Storages& storages);

  /// Whether the value is a NumPy array or scalar, or a dense tensor.
  bool is_array(const Value& value) const;
  Array array(const Value& value, std::string_view what) const;

  /// Whether it is scipy.sparse.csr_matrix, or a tensor in torch's CSR layout.
  bool is_csr(const Value& value) const;
  Csr csr(const Value& value, std::string_view what) const;

  /// A whole number: an int or a NumPy scalar.
  int64_t integer(const Value& value, std::string_view what) const;
  /// A tuple or list of sizes, none negative.
  std::vector<uint64_t> sizes(const Value& value, std::string_view what) const;

 private:
  Array numpy_reconstructed(const Value& value, std::string_view what) const;
  Array numpy_from_buffer(const Value& value, std::string_view what) const;
  Array numpy_scalar(const Value& value, std::string_view what) const;
  void numpy_dtype(const Value& value, std::string_view what, Array& array) const;
  Array torch_tensor(const Value& value, std::string_view what) const;
  Bytes torch_storage(const Value& value, std::string_view what, std::optional<DType>& dtype) const;
  const Value& plain(const Value& value) const;  // the tensor of a Parameter
  const Value& require(const Value* value, std::string_view what, std::string_view part) const;

  const Tree& tree_;
  const Storages& storages_;
  mutable uint64_t nested_left_;  // bytes of pickles within the pickle that may still be read
};

/// Elements `first`, first + 1, ... in stored order as integers. Throws Error(kUnsupported) naming `what` for an array
/// of other than whole numbers, Error(kInvalidFile) for a number beyond 63 bits.
void read_integers(const Array& array, uint64_t first, std::span<int64_t> out, std::string_view what);

/// The same as float32. Throws Error(kUnsupported) for other types, and for a float64 that float32 cannot hold exactly.
void read_exact_floats(const Array& array, uint64_t first, std::span<float> out, std::string_view what);

}  // namespace upg::pickle
