// What the layers of a 1.0 file mean, and every way in which one can contradict itself.
#include "convert/legacy_model.h"

#include <cstring>
#include <limits>

#include "codec/int8.h"
#include "codec/mdcsr.h"
#include "format/test_util.h"

namespace upg {
namespace {

using namespace std::string_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing_util::as_bytes;
using testing_util::error_of;

std::string text(std::string_view value) { return "\x8c"s + static_cast<char>(value.size()) + std::string(value); }

std::string number(int64_t value) {
  return "\x8a\x08" + std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

template <typename T>
constexpr const char* kType = "i1";
template <>
constexpr const char* kType<int16_t> = "i2";
template <>
constexpr const char* kType<int32_t> = "i4";
template <>
constexpr const char* kType<int64_t> = "i8";
template <>
constexpr const char* kType<uint16_t> = "u2";
template <>
constexpr const char* kType<float> = "f4";
template <>
constexpr const char* kType<double> = "f8";

// numpy.core.numeric._frombuffer(bytes, dtype(type), (size,), "C")
template <typename T>
std::string array(const std::vector<T>& values) {
  const std::string data(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  const uint64_t size = data.size();
  return "cnumpy.core.numeric\n_frombuffer\n(\x8e" + std::string(reinterpret_cast<const char*>(&size), 8) + data +
         "cnumpy\ndtype\n" + text(kType<T>) + "\x85R" + number(static_cast<int64_t>(values.size())) + "\x85" +
         text("C") + "tR";
}

using Fields = std::vector<std::pair<std::string, std::string>>;

std::string dict(const Fields& fields) {
  std::string out = "}(";
  for (const auto& [key, value] : fields) out += text(key) + value;
  return out + "u";
}

std::string model_of(const std::string& layer, const std::string& name = "a.weight") {
  return dict({{"version", text("1.0")}, {"layers", dict({{name, layer}})}}) + ".";
}

struct Layer {
  int64_t rows = 2, cols = 600;
  std::vector<int8_t> values = {5, -7, 100};
  std::vector<int32_t> indices = {0, 599, 3};
  std::vector<int32_t> indptr = {0, 2, 3};
  std::vector<float> scales = {0.5f, 2.0f};
  std::vector<uint16_t> primes = {};

  Fields fields() const {
    Fields all = {{"shape", number(rows) + number(cols) + "\x86"},
                  {"values", array(values)},
                  {"indices", array(indices)},
                  {"indptr", array(indptr)},
                  {"scales", array(scales)}};
    if (!primes.empty()) all.push_back({"prime_indices", array(primes)});
    return all;
  }
  std::string pickle() const { return model_of(dict(fields())); }
  // With one field in another form.
  std::string with(const std::string& key, const std::string& value) const {
    Fields changed = fields();
    for (auto& [name, old] : changed)
      if (name == key) old = value;
    return model_of(dict(changed));
  }
};

struct Loaded {
  explicit Loaded(std::string pickle)
      : bytes(std::move(pickle)), model(as_bytes(bytes), "old.upg"), weight(model.load(0)) {}
  Matrix open() const {
    std::vector<TensorView> parts;
    for (const auto& part : weight.parts) parts.push_back({part.suffix, part.dtype, part.shape, part.data});
    return weight.codec->open("a", weight.shape.at(0), weight.shape.at(1), parts);
  }
  std::vector<float> row(uint64_t r) const {
    const Matrix matrix = open();
    std::vector<float> out(matrix.cols);
    matrix.codec->decode_row(matrix, r, out.data());
    return out;
  }
  std::string bytes;
  LegacyModel model;
  StoredWeight weight;
};

std::string refusal(const std::string& pickle) {
  return error_of([&] { Loaded{pickle}; }).value_or("nothing was refused");
}

TEST(LegacyModel, AMatrixBecomesMdcsrWithBridges) {
  const Loaded loaded(Layer{}.pickle());
  EXPECT_EQ(loaded.weight.codec, &kMdcsrCodec);
  EXPECT_EQ(loaded.weight.parts.at(0).shape.at(0), 3u + 2u) << "599 is two bridges away";
  EXPECT_EQ(loaded.row(0)[0], 2.5f);
  EXPECT_EQ(loaded.row(0)[599], -3.5f);
  EXPECT_EQ(loaded.row(1)[3], 200.0f);
  EXPECT_EQ(loaded.row(1)[4], 0.0f);
}

TEST(LegacyModel, PrimeIndicesMakeItTheManifoldForm) {
  const Loaded loaded(Layer{.primes = {9999, 0, 23}}.pickle());
  EXPECT_EQ(loaded.weight.codec, &kMdcsrManifoldCodec);
  EXPECT_EQ(loaded.row(0)[0], 0.5f * 5.5f);
  EXPECT_THAT(refusal(Layer{.primes = {1, 10000, 2}}.pickle()), HasSubstr("prime_indices: element 1 (row 0) is 10000"));
  EXPECT_THAT(refusal(Layer{.primes = {1, 2}}.pickle()), HasSubstr("prime_indices has the shape [2], expected [3]"));
}

TEST(LegacyModel, ColumnsMayComeInAnyOrder) {
  EXPECT_EQ(Loaded((Layer{.indices = {599, 0, 3}}).pickle()).row(0)[599], 2.5f);
  EXPECT_THAT(refusal(Layer{.indices = {7, 7, 3}}.pickle()), HasSubstr("column 7 is twice in row 0"));
}

TEST(LegacyModel, WiderIntegersAndExactDoublesWillDo) {
  const Loaded values(Layer{}.with("values", array<int64_t>({5, -7, 100})));
  EXPECT_EQ(values.row(1)[3], 200.0f);
  EXPECT_EQ(Loaded(Layer{}.with("scales", array<double>({0.5, 2}))).row(1)[3], 200.0f);
  EXPECT_THAT(refusal(Layer{}.with("scales", array<double>({0.1, 2}))),
              HasSubstr("which float32 does not hold exactly"));
  EXPECT_THAT(refusal(Layer{}.with("values", array<int16_t>({5, 128, 100}))), HasSubstr("element 1 (row 0) is 128"));
  EXPECT_THAT(refusal(Layer{}.with("values", array<float>({5, 1, 1}))),
              HasSubstr("an array of F32, expected whole numbers"));
}

TEST(LegacyModel, AMatrixWithMinus128IsStoredDense) {
  const Loaded loaded(Layer{.values = {5, -128, 100}}.pickle());
  EXPECT_EQ(loaded.weight.parts.at(0).dtype, DType::kF32);
  EXPECT_THAT(loaded.weight.note, HasSubstr("-128"));
  EXPECT_EQ(loaded.row(0)[599], -64.0f);
  EXPECT_EQ(loaded.row(1)[3], 200.0f);
  EXPECT_THAT(refusal(Layer{.cols = 2'000'000'000, .values = {5, -128, 100}}.pickle()),
              HasSubstr("would take over 1000 times"));
  EXPECT_THAT(refusal(Layer{.values = {-128, 1, 1}, .scales = {0x1p121f, 1}}.pickle()), HasSubstr("scales: row 0"));
}

TEST(LegacyModel, ShapesThatContradictEachOtherAreRefused) {
  EXPECT_THAT(refusal(Layer{.rows = 3}.pickle()), HasSubstr("indptr has the shape [3], expected [4]"));
  EXPECT_THAT(refusal(Layer{.rows = -1}.pickle()), HasSubstr("has the size -1"));
  EXPECT_THAT(refusal(Layer{.rows = 1ll << 40}.pickle()), HasSubstr("has 1099511627776 rows"));
  EXPECT_THAT(refusal(Layer{.cols = 1ll << 40}.pickle()), HasSubstr("has 1099511627776 columns"));
  EXPECT_THAT(refusal(Layer{.cols = 599}.pickle()),
              HasSubstr("element 1 (row 0) is 599, but the matrix has 599 columns"));
  EXPECT_THAT(refusal(Layer{.cols = 2'000'000'000, .indices = {0, 1'999'999'999, 3}}.pickle()),
              HasSubstr("too few for MdCSR"));
  EXPECT_THAT(refusal(Layer{.indices = {0, -1, 3}}.pickle()), HasSubstr("element 1 (row 0) is -1"));
  EXPECT_THAT(refusal(Layer{.indices = {0, 1}}.pickle()), HasSubstr("indices has the shape [2], expected [3]"));
  EXPECT_THAT(refusal(Layer{.indptr = {1, 2, 3}}.pickle()), HasSubstr("indptr: element 0 is 1"));
  EXPECT_THAT(refusal(Layer{.indptr = {0, 3, 2}}.pickle()), HasSubstr("indptr: element 2 is 2"));
  EXPECT_THAT(refusal(Layer{.indptr = {0, 1, 2}}.pickle()), HasSubstr("indptr ends with 2"));
  EXPECT_THAT(refusal(Layer{.indptr = {0, 1, 9}}.pickle()), HasSubstr("indptr: element 2 is 9"));
  EXPECT_THAT(refusal(Layer{.cols = 1}.pickle()), HasSubstr("row 0 has 2 values in 1 columns"));
  EXPECT_THAT(refusal(Layer{.scales = {1}}.pickle()), HasSubstr("scales has the shape [1], expected [2]"));
  EXPECT_THAT(refusal(Layer{.scales = {1, std::numeric_limits<float>::infinity()}}.pickle()),
              HasSubstr("scales: row 1 has the scale inf"));
  EXPECT_THAT(refusal(Layer{}.with("shape", number(2) + "\x85")), HasSubstr("shape has 1 dimensions"));
  EXPECT_THAT(refusal(Layer{}.with("shape", text("2x3"))), HasSubstr("has a text in place of its shape"));
  EXPECT_THAT(refusal(Layer{}.with("values", "N")), HasSubstr("is None, expected a NumPy array or a tensor"));
  EXPECT_THAT(refusal(model_of("N")), HasSubstr("a.weight: is None, expected a dict of arrays"));
  EXPECT_THAT(refusal(model_of("}")), HasSubstr("\"shape\" is missing"));
}

TEST(LegacyModel, AnEmptyMatrixIsOne) {
  const Loaded loaded(Layer{.rows = 0, .values = {}, .indices = {}, .indptr = {0}, .scales = {}}.pickle());
  EXPECT_EQ(loaded.weight.shape, (std::vector<uint64_t>{0, 600}));
}

TEST(LegacyModel, AnArrayIsADenseWeight) {
  const Loaded loaded(model_of(array<float>({1, -2.5f})));
  EXPECT_THAT(loaded.weight.shape, ElementsAre(2));
  EXPECT_EQ(loaded.weight.parts.at(0).dtype, DType::kF32);
  EXPECT_EQ(std::memcmp(loaded.weight.parts[0].data.data(), std::vector<float>{1, -2.5f}.data(), 8), 0);
  EXPECT_THAT(refusal(model_of(array<int32_t>({1}))), HasSubstr("an array of I32, expected floating-point numbers"));
}

TEST(LegacyModel, NamesOfModulesBecomeNamesOfWeights) {
  EXPECT_EQ(Loaded(model_of(array<float>({1}), "model.norm")).model.items().at(0).name, "model.norm.weight");
  EXPECT_EQ(Loaded(model_of(array<float>({1}), "model.norm.weight")).model.items().at(0).name, "model.norm.weight");
}

TEST(LegacyModel, LayersThatShareAnArrayWithoutEndAreRefused) {
  std::string layers = "}(";
  for (int i = 0; i < 64; ++i)
    layers += text(std::to_string(i)) + (i == 0 ? array<float>(std::vector<float>(4096)) + "q\x01" : "h\x01");
  EXPECT_THAT(refusal(dict({{"version", text("1.0")}, {"layers", layers + "u"}}) + "."),
              HasSubstr("share the same arrays over and over"));
}

TEST(LegacyModel, ThreeZeroTakesInt8WhereThatIsSmallerAndTheSame) {
  // Two rows of four, six of eight weights there.
  Layer layer{.rows = 2, .cols = 4, .values = {1, -2, 3, 4, 5, 6}, .indices = {0, 1, 2, 3, 0, 3}, .indptr = {0, 4, 6}};
  const Loaded loaded(layer.pickle());
  const StoredWeight smaller = smaller_exact_form(loaded.model.load(0), "a");
  ASSERT_EQ(smaller.codec, &kInt8Codec);
  EXPECT_LT(smaller.bytes(), loaded.weight.bytes());
  std::vector<TensorView> parts;
  for (const auto& part : smaller.parts) parts.push_back({part.suffix, part.dtype, part.shape, part.data});
  const Matrix matrix = smaller.codec->open("a", 2, 4, parts);
  for (uint64_t r = 0; r < 2; ++r) {
    std::vector<float> row(4);
    matrix.codec->decode_row(matrix, r, row.data());
    EXPECT_EQ(std::memcmp(row.data(), loaded.row(r).data(), 16), 0);
  }
  layer.scales = {-0.5f, 2};  // weights that are not stored would be negative zeros
  EXPECT_EQ(smaller_exact_form(Loaded(layer.pickle()).model.load(0), "a").codec, &kMdcsrCodec);
  EXPECT_EQ(smaller_exact_form(Loaded(Layer{}.pickle()).model.load(0), "a").codec, &kMdcsrCodec) << "sparse ones stay";
}

}  // namespace
}  // namespace upg
