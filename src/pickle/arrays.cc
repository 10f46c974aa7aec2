#include "pickle/arrays.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "base/float16.h"
#include "pickle/torch_sequence.h"

namespace upg::pickle {
namespace {

constexpr uint64_t kMaxReads = 16;  // of a storage within the pickle: a model is read twice

struct NumpyType {
  std::string_view name;
  DType dtype;
};

constexpr NumpyType kNumpyTypes[] = {
    {"b1", DType::kBool}, {"i1", DType::kI8},  {"u1", DType::kU8},  {"i2", DType::kI16},
    {"u2", DType::kU16},  {"f2", DType::kF16}, {"i4", DType::kI32}, {"u4", DType::kU32},
    {"f4", DType::kF32},  {"i8", DType::kI64}, {"u8", DType::kU64}, {"f8", DType::kF64},
};

template <typename... Args>
[[noreturn]] void invalid(std::string_view what, fmt::format_string<Args...> format, Args&&... args) {
  fail(ErrorCode::kInvalidFile, "{}: {}", what, fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
[[noreturn]] void unsupported(std::string_view what, fmt::format_string<Args...> format, Args&&... args) {
  fail(ErrorCode::kUnsupported, "{}: {}", what, fmt::format(format, std::forward<Args>(args)...));
}

bool is_bytes(const Value& value) { return value.kind == Kind::kBytes || value.kind == Kind::kString; }

std::span<const std::byte> bytes_of(const Value& value) { return std::as_bytes(std::span(value.bytes)); }

uint64_t bytes_needed(std::span<const uint64_t> shape, DType dtype, std::string_view what) {
  const auto elements = checked_product(shape);
  const auto bytes = elements ? checked_mul(*elements, dtype_info(dtype).bytes) : std::nullopt;
  if (!bytes) invalid(what, "its shape has more elements than 64 bits count");
  return *bytes;
}

void require_size(const Array& array, std::string_view what) {
  const uint64_t needed = bytes_needed(array.shape, array.dtype, what);
  if (needed != array.bytes.data.size())
    invalid(what, "has {} bytes of data, but its shape and type need {}", array.bytes.data.size(), needed);
}

// An array of a single dimension, or of one that counts, lies the same in both orders.
bool order_matters(std::span<const uint64_t> shape) {
  return std::count_if(shape.begin(), shape.end(), [](uint64_t size) { return size != 1; }) > 1;
}

// Whether the strides, in elements, are those of an array without gaps.
bool is_packed(std::span<const uint64_t> shape, std::span<const uint64_t> strides, bool fortran) {
  uint64_t expected = 1;
  for (size_t i = 0; i < shape.size(); ++i) {
    const size_t dim = fortran ? i : shape.size() - 1 - i;
    if (shape[dim] == 0) return true;
    if (shape[dim] != 1 && strides[dim] != expected) return false;
    expected = checked_mul(expected, shape[dim]).value_or(UINT64_MAX);
  }
  return true;
}

}  // namespace

ArrayReader::ArrayReader(const Tree& tree, const Storages& storages)
    : tree_(tree), storages_(storages), nested_left_(kMaxReads * tree.end) {}

const Value& ArrayReader::require(const Value* value, std::string_view what, std::string_view part) const {
  if (value == nullptr) invalid(what, "was pickled without its {}", part);
  return *value;
}

const Value& ArrayReader::plain(const Value& value) const {
  const Value* inner = &value;
  constexpr int kDeepest = 4;
  for (int depth = 0; depth < kDeepest; ++depth) {
    if (inner->kind != Kind::kObject || inner->global->role != Role::kTorchParameter) break;
    const Value* wrapped = tree_.arg(*inner, 0);
    if (wrapped == nullptr) break;
    inner = wrapped;
  }
  return *inner;
}

bool ArrayReader::is_array(const Value& wrapped) const {
  const Value& value = plain(wrapped);
  if (value.kind != Kind::kObject) return false;
  constexpr std::array kRoles = {Role::kNumpyReconstruct, Role::kNumpyFromBuffer, Role::kNumpyScalar,
                                 Role::kTorchTensor, Role::kTorchTensorV3};
  return std::find(kRoles.begin(), kRoles.end(), value.global->role) != kRoles.end();
}

Array ArrayReader::array(const Value& wrapped, std::string_view what) const {
  if (!is_array(wrapped)) invalid(what, "is {}, expected a NumPy array or a tensor", kind_name(wrapped.kind));
  const Value& value = plain(wrapped);
  switch (value.global->role) {
    case Role::kNumpyReconstruct:
      return numpy_reconstructed(value, what);
    case Role::kNumpyFromBuffer:
      return numpy_from_buffer(value, what);
    case Role::kNumpyScalar:
      return numpy_scalar(value, what);
    default:
      return torch_tensor(value, what);
  }
}

// numpy.dtype("f4", align, copy), then the state (version, byte order, subarray, names, fields, ...).
void ArrayReader::numpy_dtype(const Value& value, std::string_view what, Array& array) const {
  if (value.kind != Kind::kObject || value.global->role != Role::kNumpyDtype)
    invalid(what, "has {} in place of its dtype", kind_name(value.kind));
  const Value& name = require(tree_.arg(value, 0), what, "dtype");
  if (!is_text(name)) unsupported(what, "its dtype is not a simple one");
  std::string_view code = name.bytes;
  char order = '=';
  if (!code.empty() && std::string_view("<>|=").find(code.front()) != std::string_view::npos) {
    order = code.front();
    code.remove_prefix(1);
  }
  const auto known = std::find_if(std::begin(kNumpyTypes), std::end(kNumpyTypes),
                                  [&](const NumpyType& type) { return type.name == code; });
  if (known == std::end(kNumpyTypes))
    unsupported(what, "its dtype is \"{}\"; integers, bool and float16 to float64 are read", shown(name.bytes));
  if (value.state != kNoRef) {
    const Value& state = tree_[value.state];
    if (state.kind != Kind::kTuple || state.items.size() < 5) invalid(what, "its dtype has an unknown state");
    const Value& stored = tree_[state.items[1]];
    if (!is_text(stored) || stored.bytes.size() != 1 ||
        std::string_view("<>|=").find(stored.bytes[0]) == std::string_view::npos)
      invalid(what, "its dtype has an unknown byte order");
    order = stored.bytes[0];
    for (size_t i = 2; i < 5; ++i)
      if (tree_[state.items[i]].kind != Kind::kNone) unsupported(what, "its dtype is structured");
  }
  array.dtype = known->dtype;
  array.swapped = order == '>' && dtype_info(known->dtype).bytes > 1;
}

// _reconstruct(ndarray, (0,), b"b"), then the state (1, shape, dtype, Fortran order, data).
Array ArrayReader::numpy_reconstructed(const Value& value, std::string_view what) const {
  const Value& type = require(tree_.arg(value, 0), what, "type");
  if (type.kind != Kind::kGlobal || type.global->role != Role::kNdarray)
    unsupported(what, "is not a plain numpy.ndarray");
  if (value.state == kNoRef) invalid(what, "was pickled without its state");
  const Value& state = tree_[value.state];
  if (state.kind != Kind::kTuple || state.items.size() != 5) invalid(what, "has an unknown state");
  const auto item = [&](size_t i) -> const Value& { return tree_[state.items[i]]; };
  Array array;
  array.shape = sizes(item(1), what);
  numpy_dtype(item(2), what, array);
  array.fortran = (item(3).kind == Kind::kBool || item(3).kind == Kind::kInt) && item(3).number != 0;
  if (!is_bytes(item(4))) unsupported(what, "holds {}, not numbers", kind_name(item(4).kind));
  array.bytes.data = bytes_of(item(4));
  require_size(array, what);
  return array;
}

// _frombuffer(buffer, dtype, shape, order): protocol 5.
Array ArrayReader::numpy_from_buffer(const Value& value, std::string_view what) const {
  const Value& buffer = require(tree_.arg(value, 0), what, "buffer");
  if (!is_bytes(buffer)) invalid(what, "has {} in place of its buffer", kind_name(buffer.kind));
  Array array;
  array.bytes.data = bytes_of(buffer);
  numpy_dtype(require(tree_.arg(value, 1), what, "dtype"), what, array);
  array.shape = sizes(require(tree_.arg(value, 2), what, "shape"), what);
  const Value& order = require(tree_.arg(value, 3), what, "order");
  array.fortran = is_text(order, "F");
  if (!array.fortran && !is_text(order, "C") && order_matters(array.shape))
    unsupported(what, "its order is neither C nor Fortran; save a copy made by numpy.ascontiguousarray");
  require_size(array, what);
  return array;
}

Array ArrayReader::numpy_scalar(const Value& value, std::string_view what) const {
  Array array;
  numpy_dtype(require(tree_.arg(value, 0), what, "dtype"), what, array);
  const Value& data = require(tree_.arg(value, 1), what, "value");
  if (!is_bytes(data)) invalid(what, "has {} in place of its value", kind_name(data.kind));
  array.bytes.data = bytes_of(data);
  require_size(array, what);
  return array;
}

// ("storage", type, key, device, elements) as a persistent id, or a file of torch.save within bytes.
Bytes ArrayReader::torch_storage(const Value& value, std::string_view what, std::optional<DType>& dtype) const {
  if (value.kind == Kind::kObject && value.global->role == Role::kTorchStorageBytes) {
    const Value& inside = require(tree_.arg(value, 0), what, "bytes");
    if (!is_bytes(inside)) invalid(what, "has {} in place of its storage", kind_name(inside.kind));
    if (inside.bytes.size() > nested_left_) invalid(what, "the file refers to the same storage over and over");
    nested_left_ -= inside.bytes.size();
    return read_torch_storage(bytes_of(inside), std::string(what), dtype);
  }
  if (value.kind != Kind::kStorage) invalid(what, "has {} in place of its storage", kind_name(value.kind));
  const Value* tag = tree_.arg(value, 0);
  const Value* type = tree_.arg(value, 1);
  const Value* key = tree_.arg(value, 2);
  if (tag == nullptr || !is_text(*tag, "storage") || type == nullptr || type->kind != Kind::kGlobal || key == nullptr ||
      !is_text(*key))
    invalid(what, "has a persistent id that is no torch storage's");
  if (type->global->role == Role::kStorageType)
    dtype = type->global->dtype;
  else if (type->global->role != Role::kUntypedStorage)
    invalid(what, "{}.{} is not a type of storages", type->global->module, type->global->name);
  return storages_(key->bytes);
}

// _rebuild_tensor_v2(storage, offset, shape, strides, ...); _v3 has a dtype as its seventh.
Array ArrayReader::torch_tensor(const Value& value, std::string_view what) const {
  Array array;
  array.shape = sizes(require(tree_.arg(value, 2), what, "shape"), what);
  const std::vector<uint64_t> strides = sizes(require(tree_.arg(value, 3), what, "strides"), what);
  if (strides.size() != array.shape.size())
    invalid(what, "has {} strides for {} dimensions", strides.size(), array.shape.size());
  const int64_t offset = integer(require(tree_.arg(value, 1), what, "offset"), what);
  std::optional<DType> dtype;
  const Bytes storage = torch_storage(require(tree_.arg(value, 0), what, "storage"), what, dtype);
  if (value.global->role == Role::kTorchTensorV3) {
    const Value& named = require(tree_.arg(value, 6), what, "dtype");
    if (named.kind != Kind::kGlobal || named.global->role != Role::kDtype)
      unsupported(what, "has an unknown torch dtype");
    dtype = named.global->dtype;
  }
  if (!dtype) invalid(what, "has a storage without type");
  array.dtype = *dtype;
  array.fortran = !is_packed(array.shape, strides, false);
  if (array.fortran && !is_packed(array.shape, strides, true))
    unsupported(what, "is a view with strides of its own; save a copy made by .contiguous()");
  const uint64_t needed = bytes_needed(array.shape, array.dtype, what);
  const auto begin = offset < 0 ? std::nullopt : checked_mul(static_cast<uint64_t>(offset), dtype_info(*dtype).bytes);
  if (!begin || *begin > storage.data.size() || needed > storage.data.size() - *begin)
    invalid(what, "needs {} bytes from element {} on, its storage has {}", needed, offset, storage.data.size());
  array.bytes = {storage.data.subspan(*begin, needed), storage.owner};
  return array;
}

bool ArrayReader::is_csr(const Value& wrapped) const {
  const Value& value = plain(wrapped);
  return value.kind == Kind::kObject &&
         (value.global->role == Role::kCsrMatrix || value.global->role == Role::kTorchSparse);
}

Csr ArrayReader::csr(const Value& wrapped, std::string_view what) const {
  const Value& value = plain(wrapped);
  Csr csr;
  std::vector<uint64_t> shape;
  const auto part = [&](const Value* found, std::string_view name) {
    return array(require(found, what, name), fmt::format("{}: {}", what, name));
  };
  if (value.global->role == Role::kCsrMatrix) {
    const Value* stored_shape = tree_.find(value, "_shape");
    shape = sizes(require(stored_shape, what, "_shape"), what);
    csr.values = part(tree_.find(value, "data"), "data");
    csr.columns = part(tree_.find(value, "indices"), "indices");
    csr.row_pointers = part(tree_.find(value, "indptr"), "indptr");
  } else {
    const Value& layout = require(tree_.arg(value, 0), what, "layout");
    const Value* layout_name =
        layout.kind == Kind::kObject && layout.global->role == Role::kTorchLayout ? tree_.arg(layout, 0) : nullptr;
    if (layout_name == nullptr || !is_text(*layout_name, "torch.sparse_csr"))
      unsupported(what, "is a sparse tensor of another layout than torch.sparse_csr");
    const Value& data = require(tree_.arg(value, 1), what, "data");
    if (data.kind != Kind::kTuple || data.items.size() < 4) invalid(what, "has unknown data");
    csr.row_pointers = part(&tree_[data.items[0]], "crow_indices");
    csr.columns = part(&tree_[data.items[1]], "col_indices");
    csr.values = part(&tree_[data.items[2]], "values");
    shape = sizes(tree_[data.items[3]], what);
  }
  if (shape.size() != 2) invalid(what, "has {} dimensions, a matrix has 2", shape.size());
  csr.rows = shape[0];
  csr.cols = shape[1];
  return csr;
}

int64_t ArrayReader::integer(const Value& value, std::string_view what) const {
  if (value.kind == Kind::kInt) return value.number;
  // Of all arrays only a NumPy scalar: others have numbers of their own, and so on without end.
  if (value.kind != Kind::kObject || value.global->role != Role::kNumpyScalar)
    invalid(what, "has {} where a whole number should be", kind_name(value.kind));
  const Array scalar = numpy_scalar(value, what);
  int64_t number = 0;
  read_integers(scalar, 0, {&number, 1}, what);
  return number;
}

std::vector<uint64_t> ArrayReader::sizes(const Value& value, std::string_view what) const {
  constexpr size_t kMostDimensions = 64;
  if (value.kind != Kind::kTuple && value.kind != Kind::kList)
    invalid(what, "has {} in place of its shape", kind_name(value.kind));
  if (value.items.size() > kMostDimensions) invalid(what, "has {} dimensions", value.items.size());
  std::vector<uint64_t> sizes;
  for (const Ref ref : value.items) {
    const int64_t number = integer(tree_[ref], what);
    if (number < 0) invalid(what, "has the size {}", number);
    sizes.push_back(static_cast<uint64_t>(number));
  }
  return sizes;
}

namespace {

// Element `index` of `array`, whose type T is.
template <typename T>
T element(const Array& array, uint64_t index) {
  std::array<std::byte, sizeof(T)> raw;
  std::memcpy(raw.data(), array.bytes.data.data() + index * sizeof(T), sizeof(T));
  if (array.swapped) std::reverse(raw.begin(), raw.end());
  return std::bit_cast<T>(raw);
}

template <typename T>
void integers(const Array& array, uint64_t first, std::span<int64_t> out, std::string_view what) {
  for (uint64_t i = 0; i < out.size(); ++i) {
    const T value = element<T>(array, first + i);
    if constexpr (sizeof(T) == 8)
      if (value > static_cast<T>(INT64_MAX)) invalid(what, "element {} is {}", first + i, value);
    out[i] = static_cast<int64_t>(+value);
  }
}

void check_range(const Array& array, uint64_t first, uint64_t count) {
  UPG_CHECK(first <= array.elements() && count <= array.elements() - first);
}

}  // namespace

void read_integers(const Array& array, uint64_t first, std::span<int64_t> out, std::string_view what) {
  check_range(array, first, out.size());
  switch (array.dtype) {
    case DType::kI8:
      return integers<int8_t>(array, first, out, what);
    case DType::kU8:
      return integers<uint8_t>(array, first, out, what);
    case DType::kI16:
      return integers<int16_t>(array, first, out, what);
    case DType::kU16:
      return integers<uint16_t>(array, first, out, what);
    case DType::kI32:
      return integers<int32_t>(array, first, out, what);
    case DType::kU32:
      return integers<uint32_t>(array, first, out, what);
    case DType::kI64:
      return integers<int64_t>(array, first, out, what);
    case DType::kU64:
      return integers<uint64_t>(array, first, out, what);
    default:
      unsupported(what, "is an array of {}, expected whole numbers", dtype_info(array.dtype).name);
  }
}

void read_exact_floats(const Array& array, uint64_t first, std::span<float> out, std::string_view what) {
  check_range(array, first, out.size());
  const auto fill = [&](auto value_at) {
    for (uint64_t i = 0; i < out.size(); ++i) out[i] = value_at(first + i);
  };
  switch (array.dtype) {
    case DType::kF32:
      return fill([&](uint64_t i) { return element<float>(array, i); });
    case DType::kF16:
      return fill([&](uint64_t i) { return f16_to_float(element<uint16_t>(array, i)); });
    case DType::kBF16:
      return fill([&](uint64_t i) { return bf16_to_float(element<uint16_t>(array, i)); });
    case DType::kF64:
      return fill([&](uint64_t i) {
        const auto wide = element<double>(array, i);
        const auto narrow = static_cast<float>(wide);
        if (!(static_cast<double>(narrow) == wide))
          unsupported(what, "element {} is {}, which float32 does not hold exactly; save the array as float32", i,
                      wide);
        return narrow;
      });
    default:
      unsupported(what, "is an array of {}, expected floating-point numbers", dtype_info(array.dtype).name);
  }
}

}  // namespace upg::pickle
