// MdCSR encoding: which weights are kept, how they are rounded and delta-coded, and that threads change nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <thread>

#include "codec/mdcsr.h"
#include "codec/primes.h"
#include "upg/error.h"

namespace upg {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Dense {
  uint64_t rows;
  uint64_t cols;
  std::vector<float> weights;

  RowSource source() const {
    return [this](uint64_t row, std::span<float> out) {
      std::copy_n(weights.begin() + static_cast<ptrdiff_t>(row * cols), cols, out.begin());
    };
  }
  EncodedMatrix encode(const Codec& codec, double density) const {
    return codec.encode(rows, cols, source(), EncodeOptions{density, {}});
  }
};

Dense random_matrix(uint64_t rows, uint64_t cols, uint32_t seed) {
  Dense dense{rows, cols, std::vector<float>(rows * cols)};
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  for (float& weight : dense.weights) weight = normal(random);
  return dense;
}

template <typename T>
std::vector<T> part(const EncodedMatrix& encoded, size_t index) {
  const auto& data = encoded.components[index].data;
  std::vector<T> out(data.size() / sizeof(T));
  if (!data.empty()) std::memcpy(out.data(), data.data(), data.size());
  return out;
}
std::vector<int> values_of(const EncodedMatrix& encoded) {
  const auto values = part<int8_t>(encoded, 0);
  return {values.begin(), values.end()};
}
std::vector<int> deltas_of(const EncodedMatrix& encoded) {
  const auto deltas = part<uint8_t>(encoded, 1);
  return {deltas.begin(), deltas.end()};
}

std::vector<float> decoded(const EncodedMatrix& encoded) {
  std::vector<float> out(encoded.rows * encoded.cols, 99.0f);
  const Matrix matrix = open_encoded(encoded);
  mdcsr_to_dense(mdcsr_view(matrix), out.data());
  return out;
}

std::string refusal(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    return error.what();
  }
  return "accepted";
}

TEST(MdcsrEncode, ColumnsOfTheWorkedExampleBecomeItsDeltas) {
  Dense dense{1, 20, std::vector<float>(20)};
  dense.weights[0] = 1;
  dense.weights[5] = -2;
  dense.weights[12] = 4;
  dense.weights[15] = 127;
  const EncodedMatrix encoded = dense.encode(kMdcsrCodec, 4.0 / 20);
  EXPECT_THAT(values_of(encoded), ElementsAre(1, -2, 4, 127));
  EXPECT_THAT(deltas_of(encoded), ElementsAre(0, 5, 7, 3));
  EXPECT_THAT(part<uint32_t>(encoded, 2), ElementsAre(0, 4));
  EXPECT_THAT(part<float>(encoded, 3), ElementsAre(1.0f));
  EXPECT_EQ(decoded(encoded), dense.weights);
}

TEST(MdcsrEncode, OnlyGapsAbove255AreBridged) {
  const auto deltas = [](uint64_t first, uint64_t gap) {
    Dense dense{1, first + gap + 1, std::vector<float>(first + gap + 1)};
    dense.weights[first] = 127;
    dense.weights[first + gap] = -127;
    const EncodedMatrix encoded = dense.encode(kMdcsrCodec, 2.0 / static_cast<double>(dense.cols));
    EXPECT_EQ(decoded(encoded), dense.weights);
    const auto values = values_of(encoded);
    const auto result = deltas_of(encoded);
    EXPECT_EQ(values.back(), -127);
    EXPECT_EQ(std::count(values.begin(), values.end(), -128), static_cast<ptrdiff_t>(values.size() - 2));
    return result;
  };
  EXPECT_THAT(deltas(0, 255), ElementsAre(0, 255));
  EXPECT_THAT(deltas(0, 256), ElementsAre(0, 255, 1));
  EXPECT_THAT(deltas(3, 510), ElementsAre(3, 255, 255));
  EXPECT_THAT(deltas(3, 511), ElementsAre(3, 255, 255, 1));
  EXPECT_THAT(deltas(255, 1), ElementsAre(255, 1));
  EXPECT_THAT(deltas(256, 1), ElementsAre(255, 1, 1));
  EXPECT_THAT(deltas(511, 1000), ElementsAre(255, 255, 1, 255, 255, 255, 235));
}

TEST(MdcsrEncode, TheLargestWeightsOfTheWholeMatrixAreKeptEarlierOnesFirstAmongEquals) {
  const Dense dense{3, 4, {1, -2, 0, 2, 5, 2, -2, 0, 2, 0.5f, 0, 1}};
  EXPECT_EQ(decoded(dense.encode(kMdcsrCodec, 1.0 / 12)), (std::vector<float>{0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0}));
  const auto kept = [&](double count) {
    std::vector<int> columns;
    const auto out = decoded(dense.encode(kMdcsrManifoldCodec, count / 12));
    for (int i = 0; i < 12; ++i)
      if (out[static_cast<size_t>(i)] != 0) columns.push_back(i);
    return columns;
  };
  EXPECT_THAT(kept(3), ElementsAre(1, 3, 4));
  EXPECT_THAT(kept(5), ElementsAre(1, 3, 4, 5, 6));
  EXPECT_THAT(kept(6), ElementsAre(1, 3, 4, 5, 6, 8));
  EXPECT_THAT(kept(7), ElementsAre(0, 1, 3, 4, 5, 6, 8));
}

TEST(MdcsrEncode, ExactlyTheRoundedShareIsKept) {
  std::mt19937 random(7);
  for (int round = 0; round < 40; ++round) {
    const uint64_t rows = 1 + random() % 30;
    const uint64_t cols = 1 + random() % 900;
    Dense dense = random_matrix(rows, cols, static_cast<uint32_t>(round));
    // Coarse weights make many ties, as bfloat16 does.
    if (round % 2 == 0)
      for (float& weight : dense.weights) weight = std::round(weight * 4) / 4;
    const double density = round % 5 == 0 ? round / 40.0 : static_cast<double>(random() % 1000) / 3000;
    const auto keep = static_cast<size_t>(std::llround(density * static_cast<double>(rows * cols)));

    std::vector<size_t> order(rows * cols);
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return std::abs(dense.weights[a]) > std::abs(dense.weights[b]); });
    std::vector<bool> wanted(rows * cols);
    for (size_t i = 0; i < keep; ++i) wanted[order[i]] = true;

    const EncodedMatrix encoded = dense.encode(round % 3 == 0 ? kMdcsrManifoldCodec : kMdcsrCodec, density);
    const Matrix matrix = open_encoded(encoded);
    const MdcsrView& view = mdcsr_view(matrix);
    std::vector<bool> stored(rows * cols);
    for (uint64_t row = 0; row < rows; ++row) {
      uint64_t column = 0;
      for (uint64_t k = view.row_pointers[row]; k < view.row_pointers[row + 1]; ++k) {
        column += view.delta_indices[k];
        if (view.values[k] != kSkipValue) stored[row * cols + column] = true;
      }
    }
    ASSERT_EQ(stored, wanted) << "round " << round << ": " << rows << " x " << cols << ", density " << density;

    const auto out = decoded(encoded);
    for (size_t i = 0; i < out.size(); ++i) {
      const float scale = view.scales[i / cols];
      ASSERT_LE(std::abs(out[i] - (wanted[i] ? dense.weights[i] : 0.0f)), wanted[i] ? 0.50001f * scale : 0.0f);
    }
  }
}

TEST(MdcsrEncode, PrimeIndicesMakeStoredWeightsNearlyLossless) {
  const Dense dense = random_matrix(16, 1000, 3);
  const auto squared_error = [&](const Codec& codec) {
    const auto out = decoded(dense.encode(codec, 1.0));
    double sum = 0;
    for (size_t i = 0; i < out.size(); ++i) sum += std::pow(double{out[i]} - double{dense.weights[i]}, 2);
    return sum / static_cast<double>(out.size());
  };
  const double plain = squared_error(kMdcsrCodec);
  const double refined = squared_error(kMdcsrManifoldCodec);
  EXPECT_LT(plain, 1e-4);
  EXPECT_LT(refined, 1e-9);
}

TEST(MdcsrEncode, RefinementMinimisesTheErrorOverAllValuesAndPrimes) {
  const Dense dense = random_matrix(1, 40, 11);
  const EncodedMatrix encoded = dense.encode(kMdcsrManifoldCodec, 1.0);
  const auto out = decoded(encoded);
  const float scale = part<float>(encoded, 3)[0];
  for (size_t i = 0; i < out.size(); ++i) {
    double best = 1e9;
    for (int value = -127; value <= 127; ++value)
      for (uint32_t prime = 0; prime < kPrimeCount; ++prime) {
        const float v = static_cast<float>(value) + manifold_half_levels()[prime];
        best = std::min(best, std::abs(double{scale} * double{v} - double{dense.weights[i]}));
      }
    ASSERT_LE(std::abs(double{out[i]} - double{dense.weights[i]}), best + 4e-7 * std::abs(double{dense.weights[i]}));
  }
}

TEST(MdcsrEncode, EmptyMatricesAndRowsEncodeAndOpen) {
  for (const Codec* codec : {&kMdcsrCodec, &kMdcsrManifoldCodec}) {
    for (auto [rows, cols] : {std::pair<uint64_t, uint64_t>{0, 0}, {0, 7}, {5, 0}, {1, 1}, {5, 1}, {1, 700}}) {
      for (double density : {0.0, 0.5, 1.0}) {
        const Dense dense = random_matrix(rows, cols, 1);
        const EncodedMatrix encoded = dense.encode(*codec, density);
        const auto out = decoded(encoded);
        if (density == 0) {
          EXPECT_EQ(encoded.components[0].shape[0], 0u);
          EXPECT_EQ(out, std::vector<float>(rows * cols));
          EXPECT_EQ(part<float>(encoded, 3), std::vector<float>(rows, 0.0f));
        }
        if (density == 1) {
          EXPECT_EQ(encoded.components[0].shape[0], rows * cols);
        }
      }
    }
  }
}

TEST(MdcsrEncode, ZerosAreKeptWhenTheDensityAsksForThem) {
  const Dense dense{2, 3, std::vector<float>(6)};
  const EncodedMatrix encoded = dense.encode(kMdcsrCodec, 1.0);
  EXPECT_THAT(values_of(encoded), ElementsAre(0, 0, 0, 0, 0, 0));
  EXPECT_EQ(decoded(encoded), dense.weights);
}

TEST(MdcsrEncode, ExtremeWeightsStayFiniteAndClose) {
  for (const Codec* codec : {&kMdcsrCodec, &kMdcsrManifoldCodec}) {
    const float tiny = std::numeric_limits<float>::denorm_min();
    const Dense dense{4, 2, {FLT_MAX, -FLT_MAX, tiny, -7 * tiny, FLT_MIN, -FLT_MIN / 127, 1e-30f, 1e30f}};
    const auto out = decoded(dense.encode(*codec, 1.0));
    for (size_t i = 0; i < out.size(); ++i) {
      const float absmax = std::max(std::abs(dense.weights[i | 1]), std::abs(dense.weights[i & ~size_t{1}]));
      ASSERT_TRUE(std::isfinite(out[i]));
      EXPECT_LE(std::abs(double{out[i]} - double{dense.weights[i]}), double{absmax} / 100) << i;
    }
  }
}

TEST(MdcsrEncode, WeightsThatAreNotFiniteAreRefusedWithTheFirstPosition) {
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                    -std::numeric_limits<float>::infinity()}) {
    Dense dense = random_matrix(9, 50, 1);
    dense.weights[3 * 50 + 17] = bad;
    dense.weights[8 * 50 + 2] = bad;
    for (double density : {0.0, 0.1, 1.0})
      EXPECT_THAT(refusal([&] { dense.encode(kMdcsrCodec, density); }), HasSubstr("row 3, column 17"));
  }
}

TEST(MdcsrEncode, DensitiesOutsideZeroToOneAreRefused) {
  const Dense dense = random_matrix(2, 2, 1);
  for (double density : {-0.1, 1.1, std::numeric_limits<double>::quiet_NaN()})
    EXPECT_THAT(refusal([&] { dense.encode(kMdcsrCodec, density); }), HasSubstr("must be between 0 and 1"));
}

TEST(MdcsrEncode, MoreEntriesThanRowPointersCanCountAreRefusedBeforeReadingAnything) {
  const RowSource never = [](uint64_t, std::span<float>) { FAIL() << "read a row"; };
  EXPECT_THAT(refusal([&] {
                kMdcsrCodec.encode(65536, 65536, never, EncodeOptions{1.0, {}});
              }),
              HasSubstr("4294967296 MdCSR entries"));
  EXPECT_THAT(refusal([&] {
                kMdcsrCodec.encode(uint64_t{1} << 40, 1 << 30, never, EncodeOptions{1.0, {}});
              }),
              HasSubstr("too large"));
  EXPECT_THAT(refusal([&] { kMdcsrCodec.encode(1, uint64_t{1} << 31, never, {}); }), HasSubstr("columns"));
}

TEST(MdcsrEncode, TheBytesDoNotDependOnThreads) {
  Dense dense = random_matrix(600, 4001, 5);  // several blocks
  for (float& weight : dense.weights) weight = std::round(weight * 64) / 64;
  EncodeOptions threaded;
  threaded.density = 0.1;
  threaded.parallel = [](uint64_t n, const std::function<void(uint64_t)>& body) {
    std::atomic<uint64_t> next = n;  // last block first
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t)
      threads.emplace_back([&] {
        for (uint64_t i; (i = next.fetch_sub(1)) - 1 < n;) body(i - 1);
      });
    for (std::thread& thread : threads) thread.join();
  };
  const EncodedMatrix serial = dense.encode(kMdcsrManifoldCodec, 0.1);
  const EncodedMatrix parallel = kMdcsrManifoldCodec.encode(dense.rows, dense.cols, dense.source(), threaded);
  ASSERT_EQ(serial.components.size(), parallel.components.size());
  for (size_t i = 0; i < serial.components.size(); ++i)
    EXPECT_EQ(serial.components[i].data, parallel.components[i].data) << serial.components[i].suffix;

  dense.weights[5] = dense.weights.back() = NAN;
  EXPECT_THAT(refusal([&] { kMdcsrManifoldCodec.encode(dense.rows, dense.cols, dense.source(), threaded); }),
              HasSubstr("row 0, column 5"));
}

TEST(MdcsrEncode, TheEstimateOfStoredBytesIsCloseForRandomWeights) {
  const Dense dense = random_matrix(200, 3000, 2);
  for (const Codec* codec : {&kMdcsrCodec, &kMdcsrManifoldCodec})
    for (double density : {0.0, 0.002, 0.01, 0.1, 1.0}) {
      const double actual = static_cast<double>(dense.encode(*codec, density).bytes());
      const double estimate = static_cast<double>(codec->stored_bytes(dense.rows, dense.cols, density));
      EXPECT_NEAR(estimate / actual, 1.0, density < 0.01 ? 0.15 : 0.01) << codec->id << " at " << density;
    }
}

EncodedMatrix built(uint64_t rows, uint64_t cols, const std::vector<mdcsr::Entry>& entries,
                    const std::vector<float>& scales) {
  EncodedMatrix encoded{&kMdcsrCodec, rows, cols, {}};
  encoded.components = mdcsr::build_parts("", rows, cols, entries, scales);
  EXPECT_EQ(encoded.bytes(), mdcsr::built_bytes(rows, entries));
  return encoded;
}

TEST(MdcsrBuild, TheExampleOfTheLayoutComesOutAsItStandsThere) {
  const EncodedMatrix encoded =
      built(3, 401, {{1, 0, 81}, {1, 5, -127}, {1, 12, 3}, {1, 15, 44}, {1, 400, 9}}, {0.0f, 0.5f, 0.0f});
  EXPECT_THAT(values_of(encoded), ElementsAre(81, -127, 3, 44, -128, 9));
  EXPECT_THAT(deltas_of(encoded), ElementsAre(0, 5, 7, 3, 255, 130));
  EXPECT_THAT(part<uint32_t>(encoded, 2), ElementsAre(0u, 0u, 6u, 6u));
  EXPECT_THAT(part<float>(encoded, 3), ElementsAre(0.0f, 0.5f, 0.0f));
}

TEST(MdcsrBuild, TheManifoldFormHasAPrimeIndexForEveryEntryAndZeroForBridges) {
  EncodedMatrix encoded{&kMdcsrManifoldCodec, 1, 401, {}};
  encoded.components = mdcsr::build_parts("", 1, 401, std::vector<mdcsr::Entry>{{0, 0, 81, 417}, {0, 400, 9, 611}},
                                          std::vector<float>{0.5f}, true);
  EXPECT_THAT(part<uint16_t>(encoded, 4), ElementsAre(417, 0, 611));
  std::vector<float> row(401);
  kMdcsrManifoldCodec.decode_row(open_encoded(encoded), 0, row.data());
  EXPECT_EQ(row[400], 0.5f * (9.0f + manifold_half_levels()[611]));
  EXPECT_THAT(refusal([] {
                mdcsr::build_parts("", 1, 4, std::vector<mdcsr::Entry>{{0, 0, 1, 10000}}, std::vector<float>{1}, true);
              }),
              HasSubstr("has the prime index 10000, must be below 10000"));
}

TEST(MdcsrBuild, GapsOf255NeedNoBridgeAndThoseOf510One) {
  EXPECT_THAT(deltas_of(built(1, 256, {{0, 255, 1}}, {1.0f})), ElementsAre(255));
  EXPECT_THAT(deltas_of(built(1, 257, {{0, 256, 1}}, {1.0f})), ElementsAre(255, 1));
  EXPECT_THAT(deltas_of(built(1, 512, {{0, 0, 1}, {0, 510, 1}}, {1.0f})), ElementsAre(0, 255, 255));
  EXPECT_THAT(deltas_of(built(1, 512, {{0, 0, 1}, {0, 511, 1}}, {1.0f})), ElementsAre(0, 255, 255, 1));
  EXPECT_EQ(mdcsr::built_bytes(7, {}), 8u * 7 + 4);
}

TEST(MdcsrBuild, RandomEntriesDecodeToThemselves) {
  std::mt19937 random(3);
  for (uint64_t cols : {1, 300, 5000}) {
    const uint64_t rows = 13;
    std::vector<float> expected(rows * cols), scales(rows);
    std::vector<mdcsr::Entry> entries;
    for (uint32_t r = 0; r < rows; ++r) {
      scales[r] = std::ldexp(1.25f, static_cast<int>(random() % 60) - 30);
      const uint32_t one_in = 1 + static_cast<uint32_t>(random() % 600);
      for (uint32_t c = 0; c < cols; ++c) {
        if (random() % one_in != 0) continue;
        entries.push_back({r, c, static_cast<int8_t>(static_cast<int>(random() % 255) - 127)});
        expected[r * cols + c] = scales[r] * static_cast<float>(entries.back().value);
      }
    }
    const EncodedMatrix encoded = built(rows, cols, entries, scales);
    std::vector<float> dense(rows * cols);
    mdcsr_to_dense(mdcsr_view(open_encoded(encoded)), dense.data());
    EXPECT_EQ(dense, expected);
  }
}

TEST(MdcsrBuild, EntriesAndScalesThatCouldNotBeReadBackAreRefused) {
  const auto refused = [](const std::vector<mdcsr::Entry>& entries, const std::vector<float>& scales) {
    return refusal([&] { mdcsr::build_parts("", 2, 10, entries, scales); });
  };
  const std::vector<float> scales = {1.0f, 1.0f};
  EXPECT_THAT(refused({{0, 3, 1}, {0, 3, 1}}, scales), HasSubstr("entry 1 (row 0, column 3, value 1)"));
  EXPECT_THAT(refused({{0, 3, 1}, {0, 2, 1}}, scales), HasSubstr("entry 1"));
  EXPECT_THAT(refused({{1, 3, 1}, {0, 4, 1}}, scales), HasSubstr("entry 1"));
  EXPECT_THAT(refused({{2, 0, 1}}, scales), HasSubstr("entry 0"));
  EXPECT_THAT(refused({{0, 10, 1}}, scales), HasSubstr("entry 0"));
  EXPECT_THAT(refused({{0, 0, -128}}, scales), HasSubstr("value -128"));
  EXPECT_THAT(refused({}, {1.0f, INFINITY}), HasSubstr("row 1 has the scale inf"));
  EXPECT_THAT(refused({}, {1.0f}), HasSubstr("1 scales and 10 columns"));
}

}  // namespace
}  // namespace upg
