// Every row of the gemv, matmul and unpack lists, for every codec, against decode_row: odd sizes, empty rows, extreme
// values, row and column ranges, unaligned data, and where the codec may have one a sparse residual. Nothing is named
// by hand: a new row or codec is tested by being in its list. The ops without weights are in conformance_ops_test.cc.
#include <algorithm>
#include <array>
#include <cstdio>

#include "base/checked.h"
#include "base/float16.h"
#include "codec/codec_table.h"
#include "codec/mdcsr.h"
#include "codec/primes.h"
#include "codec/trellis.h"
#include "kernels/test_products.h"
#include "kernels/test_util.h"
#include "upg/error.h"

namespace upg::kernels {
namespace {

enum class Weights {
  kRandom,
  kSaturated,  // the largest magnitudes that the codec has, everywhere
  kSparse,     // empty rows, zero scales, steps and levels
  kExtreme,    // rows near 2^90 and near 2^-90
  kBits,       // any bytes where any are valid: also infinities and NaN
};
constexpr Weights kAllWeights[] = {Weights::kRandom, Weights::kSaturated, Weights::kSparse, Weights::kExtreme,
                                   Weights::kBits};

// What is tested: a codec's matrices, with a residual or without.
struct Case {
  const Codec* codec;
  bool residual;
};
std::string name_of(const Case& c) { return std::string(c.codec->id) + (c.residual ? "_residual" : ""); }
void PrintTo(const Case& c, std::ostream* out) { *out << name_of(c); }

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const Codec* codec : codecs()) {
    all.push_back({codec, false});
    if (codec->id.starts_with("trellis")) all.push_back({codec, true});
  }
  return all;
}

template <typename T>
void put(EncodedMatrix& to, const char* suffix, DType dtype, std::vector<uint64_t> shape, const std::vector<T>& data) {
  EncodedMatrix::Component part{suffix, dtype, std::move(shape), std::vector<std::byte>(data.size() * sizeof(T))};
  if (!data.empty()) std::memcpy(part.data.data(), data.data(), part.data.size());
  to.components.push_back(std::move(part));
}

// Any codes, steps and prime indices are a valid trellis matrix: the encoder would reach few of them.
EncodedMatrix random_trellis(const Codec& codec, unsigned bits, uint64_t rows, uint64_t cols, Weights kind,
                             Random& random) {
  const uint64_t panels = ceil_div(rows, 16), blocks = ceil_div(cols, 32);
  EncodedMatrix encoded{&codec, rows, cols, {}};
  put(encoded, "codes", DType::kU32, {panels, blocks, bits, 16}, random.bits<uint32_t>(panels * blocks * bits * 16));
  put(encoded, "block_scales", DType::kU8, {panels, blocks, 8}, random.bits<uint8_t>(panels * blocks * 8));
  std::vector<uint16_t> row_scales(rows);
  for (uint64_t r = 0; r < rows; ++r) {
    int exponent = -static_cast<int>(random.below(12));
    if (kind == Weights::kExtreme) exponent = random.below(2) ? 90 : -90;
    const float scale = std::ldexp(1.0f + static_cast<float>(random.below(128)) / 128, exponent);
    row_scales[r] = kind == Weights::kSparse && random.below(3) == 0 ? 0 : float_to_bf16(scale);
  }
  put(encoded, "row_scales", DType::kBF16, {rows}, row_scales);
  std::vector<uint8_t> steps = random.bits<uint8_t>(16);
  std::vector<uint16_t> codebook(uint64_t{1} << bits);
  for (uint16_t& index : codebook) index = static_cast<uint16_t>(random.below(10000));
  if (kind == Weights::kSaturated) {
    std::fill(steps.begin(), steps.end(), uint8_t{255});
    const bool one_sign = random.below(2) == 0;  // 127 everywhere, or -127 and 127 mixed
    for (uint16_t& index : codebook) index = one_sign || random.below(2) ? 9999 : 0;
  }
  if (kind == Weights::kSparse) {
    for (uint8_t& step : steps) step = random.below(2) ? step : 0;
    for (uint16_t& index : codebook) index = random.below(2) ? index : int8_to_prime_index(0);
  }
  put(encoded, "steps", DType::kU8, {16}, steps);
  put(encoded, "codebook", DType::kU16, {codebook.size()}, codebook);
  return encoded;
}

void add_residual(EncodedMatrix& encoded, Weights kind, Random& random) {
  std::vector<mdcsr::Entry> entries;
  std::vector<float> scales(encoded.rows);
  for (uint32_t r = 0; r < encoded.rows; ++r) {
    scales[r] = random.normal() / 127;
    if (kind == Weights::kExtreme) scales[r] *= random.below(2) ? 0x1p90f : 0x1p-90f;
    // One in so many columns; past 255, most entries have bridges.
    const uint32_t every = kind == Weights::kSaturated ? 1 : kind == Weights::kSparse ? 400 : 1 + random.below(40);
    for (uint32_t c = 0; c < encoded.cols; ++c) {
      if (random.below(every) != 0) continue;
      const int value = static_cast<int>(random.below(255)) - 127;
      entries.push_back({r, c, static_cast<int8_t>(kind == Weights::kSaturated ? (value < 0 ? -127 : 127) : value)});
    }
  }
  for (auto& part : mdcsr::build_parts(kTrellisResidual, encoded.rows, encoded.cols, entries, scales))
    encoded.components.push_back(std::move(part));
}

EncodedMatrix random_matrix(const Case& tested, uint64_t rows, uint64_t cols, Weights kind, Random& random) {
  const Codec& codec = *tested.codec;
  for (unsigned bits : {2u, 3u, 4u}) {
    if (codec.id != fmt::format("trellis{}", bits)) continue;
    EncodedMatrix encoded = random_trellis(codec, bits, rows, cols, kind, random);
    if (tested.residual) add_residual(encoded, kind, random);
    return encoded;
  }
  const uint32_t seed = random.below(1u << 30);
  const RowSource source = [&](uint64_t row, std::span<float> out) {
    Random of_row(seed + static_cast<uint32_t>(row));
    const bool empty = kind == Weights::kSparse && of_row.below(2) == 0;
    const float scale = kind != Weights::kExtreme ? 1.0f : of_row.below(2) ? 0x1p90f : 0x1p-90f;
    for (float& weight : out) {
      const float value = kind == Weights::kSaturated ? (of_row.below(2) ? 1.0f : -1.0f) : of_row.normal();
      weight = empty ? 0.0f : scale * value;
    }
  };
  constexpr double kDensities[] = {0.03, 0.3, 1.0};
  EncodedMatrix encoded = codec.encode(rows, cols, source, {kDensities[seed % 3], {}});
  if (kind == Weights::kBits && encoded.components.size() == 1)
    for (std::byte& byte : encoded.components[0].data) byte = static_cast<std::byte>(random.below(256));
  return encoded;
}

std::vector<float> decoded(const Matrix& matrix) {
  std::vector<float> dense(matrix.rows * matrix.cols);
  for (uint64_t r = 0; r < matrix.rows; ++r) matrix.codec->decode_row(matrix, r, dense.data() + r * matrix.cols);
  return dense;
}

// A matrix opened in memory of exactly its size, perhaps off any alignment, and decoded.
struct Opened {
  std::vector<std::vector<std::byte>> storage;
  Matrix matrix;
  std::vector<float> dense;     // [rows, cols]
  std::vector<float> base;      // the same without the residual
  std::vector<float> residual;  // the residual alone; empty where there is none
  bool finite = true;

  Opened(const EncodedMatrix& encoded, size_t shift) {
    std::vector<TensorView> parts;
    for (const auto& part : encoded.components) {
      std::vector<std::byte>& bytes = storage.emplace_back(part.data.size() + shift);
      if (!part.data.empty()) std::memcpy(bytes.data() + shift, part.data.data(), part.data.size());
      parts.push_back({part.suffix, part.dtype, part.shape, std::span(bytes).subspan(shift)});
    }
    matrix = encoded.codec->open("matrix", encoded.rows, encoded.cols, parts);
    dense = base = decoded(matrix);
    for (float weight : dense) finite &= std::isfinite(weight);
    std::vector<TensorView> of_base, of_residual;
    for (TensorView part : parts) {
      const bool extra = part.name.starts_with(kTrellisResidual);
      if (extra) part.name.erase(0, kTrellisResidual.size());
      (extra ? of_residual : of_base).push_back(part);
    }
    if (of_residual.empty()) return;
    base = decoded(matrix.codec->open("base", matrix.rows, matrix.cols, of_base));
    residual = decoded(kMdcsrCodec.open("residual", matrix.rows, matrix.cols, of_residual));
  }
};

// Calls check(opened, kind, random, label) for every shape and kind of weights of the codec.
template <typename Check>
void for_each_matrix(const Case& tested, Check check) {
  uint32_t seed = 0;
  for (uint64_t rows : {1, 15, 16, 17, 33, 100}) {
    for (uint64_t cols : {1, 2, 31, 32, 33, 64, 255, 256, 257, 600}) {
      for (Weights kind : kAllWeights) {
        Random random(++seed);
        const EncodedMatrix encoded = random_matrix(tested, rows, cols, kind, random);
        for (size_t shift : {0, 1}) {
          std::unique_ptr<Opened> opened;
          try {
            opened = std::make_unique<Opened>(encoded, shift);
          } catch (const Error& error) {
            ASSERT_EQ(shift, 1u) << error.what();  // a codec may insist on alignment
            continue;
          }
          check(*opened, kind, random,
                fmt::format("{} {} x {}, weights {}, shift {}, seed {}", name_of(tested), rows, cols,
                            static_cast<int>(kind), shift, seed));
          if (::testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
}

class EveryCodec : public ::testing::TestWithParam<Case> {};

TEST_P(EveryCodec, UnpackGivesTheBitsOfDecodeRow) {
  const Codec& codec = *GetParam().codec;
  std::vector<Kernel<UnpackFn>> rows_of_codec;
  for (const auto& row : runnable(unpack_kernels()))
    if (variant_matches(row.variant, codec.id)) rows_of_codec.push_back(row);
  ASSERT_FALSE(rows_of_codec.empty());
  for_each_matrix(GetParam(), [&](const Opened& opened, Weights, Random& random, const std::string& label) {
    const Matrix& m = opened.matrix;
    for (const auto& row : rows_of_codec) {
      ASSERT_EQ(row.bound, 0) << row.name << ": unpack is bit-exact";
      for (uint64_t panel = 0; panel < ceil_div(m.rows, 16); ++panel) {
        const uint64_t begin = 32 * random.below(static_cast<uint32_t>(ceil_div(m.cols, 32)));
        const uint64_t part = begin + 1 + random.below(static_cast<uint32_t>(m.cols - begin));
        for (auto [first, last] : {std::pair{uint64_t{0}, m.cols}, {begin, part}}) {
          std::vector<float> out((last - first) * 16 + 16, kPoison);
          row.run({m.layout.get(), &m, panel, first, last, out.data()});
          for (uint64_t c = first; c < last; ++c) {
            for (uint64_t j = 0; j < 16; ++j) {
              const uint64_t r = panel * 16 + j;
              const float actual = out[(c - first) * 16 + j];
              if (r >= m.rows) {
                ASSERT_EQ(actual, 0.0f) << row.name << ", padding row " << r << ": " << label;  // of either sign
              } else {
                ASSERT_EQ(std::memcmp(&actual, &opened.dense[r * m.cols + c], 4), 0)
                    << row.name << ", row " << r << ", column " << c << " gives " << actual << ", decode_row "
                    << opened.dense[r * m.cols + c] << ": " << label;
              }
            }
          }
          for (uint64_t i = 0; i < 16; ++i)
            ASSERT_EQ(out[(last - first) * 16 + i], kPoison) << row.name << " writes past its end: " << label;
        }
      }
    }
  });
}

Activations one_token(std::vector<float> x) {
  return Activations(std::move(x), 1, reference(quantize_kernels(), "q8").run);
}

// The bound of a product's row, after Higham, Accuracy and Stability of Numerical Algorithms, 3.1: n float additions
// and multiplications in any order err by at most n 2^-24 sum |w x| to first order. Codecs with int8 activations sum
// each block of 32 exactly in integers, so n counts blocks; 8 more for scaling and the last reduction. Below float's
// normal range an operation errs by 2^-149, and so does each weight that decode_row gives. A residual has products of
// its own, with float activations; but the reference decodes it into the weights, where it meets int8 ones.
void expect_products(const Product& row, const Opened& opened, const Activations& activations,
                     const std::string& label) {
  const Matrix& m = opened.matrix;
  const bool quantized = m.codec->activation == "q8";
  const bool residual = !opened.residual.empty();
  const double n =
      static_cast<double>((quantized ? ceil_div(m.cols, 32) : m.cols) + (residual ? m.cols : uint64_t{0})) + 8;
  std::vector<double> expected(m.rows), bound(m.rows);
  double x_magnitude = 0;
  for (uint64_t c = 0; c < m.cols; ++c) x_magnitude += std::abs(activations.value(quantized, 0, c));
  for (uint64_t r = 0; r < m.rows; ++r) {
    double magnitude = 0, slack = 0;
    for (uint64_t c = 0; c < m.cols; ++c) {
      const double product = double{opened.base[r * m.cols + c]} * activations.value(quantized, 0, c);
      expected[r] += product;
      magnitude += std::abs(product);
      if (!residual) continue;
      const double weight = double{opened.residual[r * m.cols + c]};
      expected[r] += weight * activations.value(false, 0, c);
      magnitude += std::abs(weight * activations.value(false, 0, c));
      if (row.isa == "ref")
        slack += std::abs(weight * (activations.value(quantized, 0, c) - activations.value(false, 0, c)));
    }
    const bool may_overflow = magnitude > 0x1p126;  // a partial sum: then nothing is promised
    bound[r] =
        may_overflow ? INFINITY : slack + row.bound * (n * kRounding * magnitude + (n + x_magnitude) * kUnderflow);
  }
  const uint64_t last_panel = (m.rows - 1) / 16 * 16;
  for (auto [begin, end] : {std::pair{uint64_t{0}, m.rows},
                            {std::min<uint64_t>(16, last_panel), m.rows},
                            {uint64_t{0}, std::min<uint64_t>(m.rows, 16)},
                            {last_panel, m.rows}}) {
    std::vector<float> y(m.rows, kPoison);
    row.run(m, activations, y.data(), m.rows, begin, end);
    for (uint64_t r = 0; r < m.rows; ++r) {
      if (r < begin || r >= end) {
        ASSERT_EQ(y[r], kPoison) << row.name << " writes row " << r << " outside [" << begin << ", " << end
                                 << "): " << label;
      } else {
        ASSERT_TRUE(bound[r] == INFINITY || within(y[r], expected[r], bound[r]))
            << row.name << ", row " << r << ": " << y[r] << " is off by " << y[r] - expected[r] << ", bound "
            << bound[r] << ": " << label;
      }
    }
  }
}

TEST_P(EveryCodec, ProductsAgreeWithDecodeRowWithinTheBound) {
  const std::vector<Product> rows_of_codec = products(*GetParam().codec);
  ASSERT_FALSE(rows_of_codec.empty());
  for_each_matrix(GetParam(), [&](const Opened& opened, Weights kind, Random& random, const std::string& label) {
    const uint64_t cols = opened.matrix.cols;
    if (!opened.finite) return;  // the sum has no value to compare with
    std::vector<std::pair<const char*, Activations>> vectors;
    vectors.emplace_back("normal", one_token(random.normals(cols)));
    if (kind != Weights::kExtreme) {
      std::vector<float> x(cols);
      for (float& value : x) value = random.below(2) ? 1e30f : -1e30f;  // int8: 127 and -127 everywhere
      vectors.emplace_back("huge", one_token(x));
      std::fill(x.begin(), x.end(), -2.0f);
      vectors.emplace_back("constant", one_token(x));
      vectors.emplace_back("tiny", one_token(random.normals(cols, 1e-28f)));
      vectors.emplace_back("zero", one_token(std::vector<float>(cols)));
    }
    for (const auto& row : rows_of_codec) {
      for (const auto& [name, activations] : vectors) {
        expect_products(row, opened, activations, fmt::format("{}, activations {}", label, name));
        if (HasFatalFailure()) return;
      }
    }
  });
}

// The bound above grows with the row: this is what shows a weight in the wrong column.
TEST_P(EveryCodec, EachColumnMeetsItsOwnActivation) {
  const Codec& codec = *GetParam().codec;
  for (uint64_t cols : {1, 33, 257}) {
    Random random(static_cast<uint32_t>(cols));
    const Opened opened(random_matrix(GetParam(), 19, cols, Weights::kRandom, random), 0);
    for (uint64_t c = 0; c < cols; ++c) {
      std::vector<float> x(cols);
      x[c] = 1.5f;
      const Activations activations = one_token(x);
      for (const Product& row : products(codec)) {
        expect_products(row, opened, activations, fmt::format("{}, only column {} of {}", codec.id, c, cols));
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(EveryCodec, MatricesWithoutColumnsGiveZeros) {
  const Codec& codec = *GetParam().codec;
  EncodedMatrix encoded = codec.encode(20, 0, [](uint64_t, std::span<float>) {}, {});
  Random random(1);
  if (GetParam().residual) add_residual(encoded, Weights::kRandom, random);
  const Opened opened(encoded, 0);
  for (const Product& row : products(codec)) expect_products(row, opened, one_token({}), "no columns");
}

// Several tokens at once are decided by one at a time: the same bits, whatever their number and place.
TEST_P(EveryCodec, TokensDoNotDependOnTheirCompany) {
  const QuantizeFn quantize = reference(quantize_kernels(), "q8").run;
  for (auto [rows, cols, n] : {std::tuple<uint64_t, uint64_t, uint64_t>{1, 1, 2},
                               {17, 33, 3},
                               {33, 257, 7},
                               {48, 64, 16},
                               {16, 96, 127},
                               {50, 700, 37},
                               {40, 40, 128},
                               {19, 70, 129},
                               {16, 32, 300}}) {
    Random random(static_cast<uint32_t>(n));
    const Opened opened(random_matrix(GetParam(), rows, cols, Weights::kRandom, random), 0);
    const Activations all(random.normals(n * cols), n, quantize);
    for (const Product& row : products(*GetParam().codec)) {
      const uint64_t stride = rows + 3;
      std::vector<float> y(n * stride, kPoison);
      row.run(opened.matrix, all, y.data(), stride, 0, rows);
      for (uint64_t t = 0; t < n; ++t) {
        const auto* x = all.x.data() + t * cols;
        std::vector<float> alone(rows);
        row.run(opened.matrix, Activations({x, x + cols}, 1, quantize), alone.data(), rows, 0, rows);
        ASSERT_EQ(std::memcmp(alone.data(), y.data() + t * stride, rows * 4), 0)
            << row.name << ", " << rows << " x " << cols << ", token " << t << " of " << n;
        for (uint64_t r = rows; r < stride; ++r) ASSERT_EQ(y[t * stride + r], kPoison) << row.name;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Codecs, EveryCodec, ::testing::ValuesIn(cases()),
                         [](const auto& param) { return name_of(param.param); });

TEST(Conformance, RowsThatCannotRunHereAreListed) {
  std::set<std::string_view> untested;
  for (const KernelStatus& status : kernel_statuses()) {
    const std::string_view isa = status.name.substr(status.name.rfind("__") + 2);
    std::string why_not;
    if (isa_available(isa, &why_not)) continue;
    std::printf("[ NOT RUN  ] %.*s: %s\n", static_cast<int>(status.name.size()), status.name.data(), why_not.c_str());
    untested.insert(status.name);
  }
  RecordProperty("kernels_not_run", static_cast<int>(untested.size()));
}

TEST(Conformance, EveryRowWithWeightsBelongsToACodec) {
  const auto serves = [](std::string_view variant, bool with_activation) {
    return std::any_of(codecs().begin(), codecs().end(), [&](const Codec* codec) {
      return variant_matches(
          variant, with_activation ? fmt::format("{}_{}", codec->id, codec->activation) : std::string(codec->id));
    });
  };
  for (const auto& row : gemv_kernels()) EXPECT_TRUE(serves(row.variant, true)) << row.name;
  for (const auto& row : matmul_kernels()) EXPECT_TRUE(serves(row.variant, true)) << row.name;
  for (const auto& row : unpack_kernels()) EXPECT_TRUE(serves(row.variant, false)) << row.name;
}

}  // namespace
}  // namespace upg::kernels
