// One compressed weight matrix, and products with it. This part sees the codec and ops layers, because the public
// headers are about whole models: a matrix by itself, its stored arrays and its kernels are what Python adds.
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/tuple.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <tuple>

#include "calls.h"
#include "codec/codec_table.h"
#include "codec/primes.h"
#include "model/weights.h"
#include "ops/linear.h"

namespace upg::python {
namespace {

using Dense = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <typename T>
using Numbers = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Stored = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

/// The threads and scratch memory of all products here, made when first needed and again in a forked child, where the
/// parent's threads are not (its own are left alone: they cannot be joined).
class Workers {
 public:
  template <typename Work>
  static void use(Work&& work) {
    static std::mutex mutex;
    static OpContext* context = nullptr;
    static long process = 0;
    const std::scoped_lock lock(mutex);
    if (context == nullptr || process != ::getpid()) {
      context = new OpContext(0);
      process = ::getpid();
    }
    work(*context);
  }
};

nb::dlpack::dtype array_type(DType type) {
  using Code = nb::dlpack::dtype_code;
  const auto bits = static_cast<uint8_t>(8 * dtype_info(type).bytes);
  const std::string_view name = dtype_info(type).name;
  Code code = Code::UInt;  // BF16 too, which NumPy does not have
  if (name[0] == 'F' && bits >= 16) code = Code::Float;
  if (name[0] == 'I') code = Code::Int;
  return {static_cast<uint8_t>(code), bits, 1};
}

/// A matrix with what owns its bytes: an encoded copy, arrays of Python's, or a mapped file.
class PackedMatrix {
 public:
  static std::shared_ptr<PackedMatrix> encode(const std::string& codec, const Dense& weights, double density) {
    const uint64_t cols = weights.shape(1);
    return encode_rows(codec, weights.shape(0), cols, density, [&](uint64_t row, std::span<float> out) {
      std::memcpy(out.data(), weights.data() + row * cols, out.size_bytes());
      for (uint64_t col = 0; col < cols; ++col) check_finite(out[col], row, col);
    });
  }

  /// The same from compressed sparse rows: entry k, of those from row_pointers[r] on, is in column columns[k]. Entries
  /// of one place are added.
  static std::shared_ptr<PackedMatrix> encode_sparse(const std::string& codec, uint64_t rows, uint64_t cols,
                                                     const Numbers<int64_t>& row_pointers,
                                                     const Numbers<int64_t>& columns, const Numbers<float>& values,
                                                     double density) {
    const auto refuse = [](const char* what) { throw Error(ErrorCode::kInvalidArgument, what); };
    const auto entries = static_cast<int64_t>(values.size());
    if (row_pointers.size() == 0 || row_pointers.size() - 1 != rows || columns.size() != values.size())
      refuse("the arrays of the sparse matrix do not fit its shape");
    for (uint64_t row = 0; row < rows; ++row)
      if (row_pointers.data()[row] > row_pointers.data()[row + 1]) refuse("the row pointers fall");
    if (row_pointers.data()[0] != 0 || row_pointers.data()[rows] != entries)
      refuse("the row pointers do not begin with 0 and end with the number of entries");
    for (int64_t k = 0; k < entries; ++k)
      if (columns.data()[k] < 0 || static_cast<uint64_t>(columns.data()[k]) >= cols)
        refuse("a column is outside the matrix");
    return encode_rows(codec, rows, cols, density, [&](uint64_t row, std::span<float> out) {
      std::fill(out.begin(), out.end(), 0.0f);
      for (int64_t k = row_pointers.data()[row]; k < row_pointers.data()[row + 1]; ++k) {
        const auto col = static_cast<uint64_t>(columns.data()[k]);
        check_finite(out[col] += values.data()[k], row, col);
      }
    });
  }

  /// `parts`: suffix, element type by its safetensors name, array. Nothing is copied; the arrays are kept.
  static std::shared_ptr<PackedMatrix> open(const std::string& name, const std::string& codec, uint64_t rows,
                                            uint64_t cols,
                                            const std::vector<std::tuple<std::string, std::string, Stored>>& parts) {
    std::vector<TensorView> views;
    auto arrays = std::make_shared<std::vector<Stored>>();
    for (const auto& [suffix, type, array] : parts) {
      const DTypeInfo* info = find_dtype(type);
      if (info == nullptr || info->bytes != array.itemsize())
        throw Error(ErrorCode::kInvalidArgument, name + "." + suffix + ": an array of " +
                                                     std::to_string(array.itemsize()) + " bytes an element is not " +
                                                     type);
      std::vector<uint64_t> shape;
      for (size_t i = 0; i < array.ndim(); ++i) shape.push_back(array.shape(i));
      views.push_back(
          {suffix, info->type, std::move(shape), {static_cast<const std::byte*>(array.data()), array.nbytes()}});
      arrays->push_back(array);
    }
    // Arrays are released with the GIL held.
    std::shared_ptr<void> owner(arrays.get(), [arrays](void*) mutable {
      const nb::gil_scoped_acquire gil;
      arrays.reset();
    });
    return std::make_shared<PackedMatrix>(name, find_codec(codec), rows, cols, std::move(views), std::move(owner));
  }

  /// The matrix `tensor` of a UPG file, in place.
  static std::shared_ptr<PackedMatrix> stored(const std::string& path, const std::string& tensor) {
    Call call;
    return call.run([&] {
      auto weights = std::make_shared<Weights>(path);
      const UpgFile* file = weights->upg_file();
      if (file == nullptr)
        throw Error(ErrorCode::kInvalidArgument, path + " is not a UPG file: its matrices are not compressed");
      const UpgEntry* entry = file->find(tensor);
      if (entry == nullptr) throw Error(ErrorCode::kNotFound, path + ": has no tensor \"" + tensor + "\"");
      if (entry->shape.size() != 2) throw Error(ErrorCode::kInvalidArgument, path + ": " + tensor + " is not a matrix");
      weights->matrix(tensor, entry->shape[0], entry->shape[1]);  // version and rules
      return std::make_shared<PackedMatrix>(tensor, find_codec(entry->codec), entry->shape[0], entry->shape[1],
                                            entry->parts, weights);
    });
  }

  PackedMatrix(const std::string& name, const Codec& codec, uint64_t rows, uint64_t cols, std::vector<TensorView> parts,
               std::shared_ptr<void> owner)
      : owner_(std::move(owner)), parts_(std::move(parts)), linear_(codec.open(name, rows, cols, parts_), name) {}

  std::string_view codec() const { return linear_.matrix().codec->id; }
  uint64_t rows() const { return linear_.rows(); }
  uint64_t cols() const { return linear_.cols(); }
  uint64_t bytes() const {
    uint64_t sum = 0;
    for (const TensorView& part : parts_) sum += part.data.size();
    return sum;
  }

  /// Suffix: read-only array on the stored bytes, which keeps `self` alive.
  nb::dict parts(nb::handle self) const {
    nb::dict out;
    for (const TensorView& part : parts_) {
      const std::vector<size_t> shape(part.shape.begin(), part.shape.end());
      out[nb::str(part.name.c_str())] = nb::cast(nb::ndarray<nb::numpy, nb::ro>(
          part.data.data(), shape.size(), shape.data(), self, nullptr, array_type(part.dtype)));
    }
    return out;
  }

  nb::ndarray<nb::numpy, float> to_dense() const {
    Call call;
    const uint64_t height = rows(), width = cols();
    std::vector<float> dense = call.run([&] {
      std::vector<float> out(height * width);
      const Matrix& matrix = linear_.matrix();
      Workers::use([&](OpContext& context) {
        context.pool.split(height, 1, [&](uint64_t begin, uint64_t end, unsigned) {
          for (uint64_t row = begin; row < end; ++row) matrix.codec->decode_row(matrix, row, out.data() + row * width);
        });
      });
      return out;
    });
    return owned_array(std::move(dense), {height, width});
  }

  /// Rows `ids` to float: [ids, cols].
  nb::ndarray<nb::numpy, float> rows_of(const Ids& ids) const {
    const Matrix& matrix = linear_.matrix();
    for (const int32_t id : span_of(ids))
      if (id < 0 || static_cast<uint64_t>(id) >= matrix.rows)
        throw Error(ErrorCode::kInvalidArgument,
                    "row " + std::to_string(id) + " is outside the matrix of " + std::to_string(matrix.rows));
    std::vector<float> out(ids.size() * matrix.cols);
    {
      const nb::gil_scoped_release release;
      for (size_t i = 0; i < ids.size(); ++i)
        matrix.codec->decode_row(matrix, static_cast<uint64_t>(ids.data()[i]), out.data() + i * matrix.cols);
    }
    return owned_array(std::move(out), {ids.size(), matrix.cols});
  }

  /// y[t] = W x[t]: x [n, cols], y [n, rows].
  nb::ndarray<nb::numpy, float> apply(const Dense& x, bool float_activations) const {
    if (x.shape(1) != cols())
      throw Error(ErrorCode::kInvalidArgument, "a matrix of " + std::to_string(rows()) + " x " +
                                                   std::to_string(cols()) + " cannot be multiplied with a vector of " +
                                                   std::to_string(x.shape(1)));
    const uint64_t n = x.shape(0);
    std::vector<float> y(n * rows());
    if (n > 0 && rows() > 0) {
      const nb::gil_scoped_release release;
      Workers::use([&](OpContext& context) {
        linear_.apply(context, x.data(), n, float_activations ? Activations::kFloat : Activations::kQuantized,
                      y.data());
      });
    }
    return owned_array(std::move(y), {n, rows()});
  }

 private:
  static void check_finite(float weight, uint64_t row, uint64_t col) {
    if (!std::isfinite(weight))
      throw Error(ErrorCode::kInvalidArgument,
                  "the weight at row " + std::to_string(row) + ", column " + std::to_string(col) + " is not finite");
  }

  static std::shared_ptr<PackedMatrix> encode_rows(const std::string& codec, uint64_t rows, uint64_t cols,
                                                   double density, const RowSource& source) {
    Call call;
    const Codec& how = find_codec(codec);
    auto encoded = call.run([&] {
      EncodeOptions options;
      options.density = density;
      std::shared_ptr<EncodedMatrix> result;
      Workers::use([&](OpContext& context) {
        options.parallel = [&](uint64_t n, const std::function<void(uint64_t)>& f) {
          context.pool.each(n, [&](uint64_t i, unsigned worker) {
            if (worker == 0 && !call.keep_going()) throw Error(ErrorCode::kCancelled, "cancelled");
            f(i);
          });
        };
        result = std::make_shared<EncodedMatrix>(how.encode(rows, cols, source, options));
      });
      return result;
    });
    std::vector<TensorView> parts;
    for (const auto& c : encoded->components) parts.push_back({c.suffix, c.dtype, c.shape, c.data});
    return std::make_shared<PackedMatrix>("matrix", how, rows, cols, std::move(parts), std::move(encoded));
  }

  std::shared_ptr<void> owner_;
  std::vector<TensorView> parts_;
  Linear linear_;
};

}  // namespace

void bind_matrix(nb::module_& m) {
  using nb::arg;
  nb::class_<PackedMatrix>(m, "Matrix")
      .def_static("encode", &PackedMatrix::encode, arg("codec"), arg("weights"), arg("density"))
      .def_static("encode_sparse", &PackedMatrix::encode_sparse, arg("codec"), arg("rows"), arg("cols"),
                  arg("row_pointers"), arg("columns"), arg("values"), arg("density"))
      .def_static("open", &PackedMatrix::open, arg("name"), arg("codec"), arg("rows"), arg("cols"), arg("parts"),
                  nb::sig("def open(name: str, codec: str, rows: int, cols: int, parts: "
                          "collections.abc.Sequence[tuple[str, str, typing.Any]]) -> Matrix"))
      .def_static("stored", &PackedMatrix::stored, arg("path"), arg("tensor"))
      .def_prop_ro("codec", &PackedMatrix::codec)
      .def_prop_ro("rows", &PackedMatrix::rows)
      .def_prop_ro("cols", &PackedMatrix::cols)
      .def_prop_ro("nbytes", &PackedMatrix::bytes)
      .def_prop_ro(
          "parts", [](nb::handle_t<PackedMatrix> self) { return nb::cast<PackedMatrix&>(self).parts(self); },
          nb::sig("def parts(self) -> dict[str, numpy.typing.NDArray[typing.Any]]"))
      .def("to_dense", &PackedMatrix::to_dense)
      .def("rows_of", &PackedMatrix::rows_of, arg("ids"))
      .def("apply", &PackedMatrix::apply, arg("x"), arg("float_activations"));
  m.def("primes",
        [] { return nb::ndarray<nb::numpy, const uint32_t, nb::ndim<1>>(kPrimes, {kPrimeCount}, nb::handle()); });
}

}  // namespace upg::python
