// Every row of the ops without stored weights against the op's reference: products of panels, attention, quantisation,
// norm, activation function. Weights are in conformance_test.cc.
#include <algorithm>
#include <array>
#include <cfloat>

#include "base/checked.h"
#include "base/float16.h"
#include "kernels/test_util.h"

namespace upg::kernels {
namespace {

constexpr uint64_t kWidths[] = {1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 255, 256, 257, 600};

// A sum of depth products and the number that was there, in any order: (depth + 2) 2^-24 (|y| + sum |a x|).
TEST(ConformanceGemm, AgreesWithTheReferenceAtAllTokenCounts) {
  uint32_t seed = 0;
  for (const auto& row : runnable(gemm_kernels())) {
    const auto ref = reference(gemm_kernels(), row.variant).run;
    for (uint64_t panels : {1, 2}) {
      for (uint64_t depth : {1, 2, 7, 31, 32, 33, 255, 256}) {
        for (uint64_t n_tokens : {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 23, 24, 25}) {
          Random random(++seed);
          const uint64_t width = 16 * panels, x_stride = depth + seed % 6, y_stride = width + seed % 4;
          std::vector<float> a = random.normals(panels * depth * 16);
          std::vector<float> x = random.normals((n_tokens - 1) * x_stride + depth);
          if (seed % 3 == 0)
            for (float& value : x) value *= random.below(2) ? 1e30f : 1e-30f;
          std::vector<float> y((n_tokens - 1) * y_stride + width, kPoison);
          for (uint64_t t = 0; t < n_tokens; ++t)
            for (uint64_t r = 0; r < width; ++r) y[t * y_stride + r] = random.normal();
          const std::vector<float> before = y;
          std::vector<float> expected = y;
          ref({a.data(), x.data(), expected.data(), panels, depth, n_tokens, x_stride, y_stride});
          row.run({a.data(), x.data(), y.data(), panels, depth, n_tokens, x_stride, y_stride});
          // Sum of magnitudes, by the reference itself.
          std::vector<float> magnitude = before;
          for (auto* values : {&a, &x, &magnitude})
            for (float& value : *values) value = std::abs(value);
          ref({a.data(), x.data(), magnitude.data(), panels, depth, n_tokens, x_stride, y_stride});
          for (uint64_t i = 0; i < y.size(); ++i) {
            if (i % y_stride >= width) {
              ASSERT_EQ(y[i], kPoison) << row.name << " writes between tokens, seed " << seed;
              continue;
            }
            const double bound =
                row.bound * static_cast<double>(depth + 2) * (kRounding * double{magnitude[i]} + kUnderflow);
            ASSERT_TRUE(within(y[i], expected[i], bound))
                << row.name << ": " << y[i] << " for " << expected[i] << ", bound " << bound << ", panels " << panels
                << ", depth " << depth << ", token " << i / y_stride << " of " << n_tokens << ", seed " << seed;
          }
        }
      }
    }
  }
}

// Keys or values of one head, as stored and as numbers.
struct Cache {
  std::vector<std::byte> bytes;
  std::vector<float> scale;  // [positions]
  std::vector<float> value;  // [positions, head_dim]
};

// Empty where the variant is not known here.
Cache random_cache(std::string_view variant, uint64_t positions, uint64_t head_dim, bool saturated, bool positive,
                   Random& random) {
  Cache cache;
  cache.scale.resize(positions, 1.0f);
  for (uint64_t i = 0; i < positions * head_dim; ++i) {
    const uint64_t p = i / head_dim;
    const float normal = positive ? std::abs(random.normal()) : random.normal();
    if (variant == "f16") {
      const uint16_t half = float_to_f16(saturated ? 100 * normal : normal);
      cache.bytes.push_back(static_cast<std::byte>(half & 255));
      cache.bytes.push_back(static_cast<std::byte>(half >> 8));
      cache.value.push_back(f16_to_float(half));
    } else if (variant == "f32") {
      const float value = saturated ? 100 * normal : normal;
      const auto* bytes = reinterpret_cast<const std::byte*>(&value);
      cache.bytes.insert(cache.bytes.end(), bytes, bytes + sizeof value);
      cache.value.push_back(value);
    } else if (variant == "int8") {
      if (i % head_dim == 0) cache.scale[p] = saturated ? 1.0f : (0.5f + std::abs(random.normal())) / 64;
      const float limited = std::clamp(normal * 40, -127.0f, 127.0f);
      const auto q = static_cast<int8_t>(saturated ? (normal < 0 ? -127 : 127) : std::lround(limited));
      cache.bytes.push_back(static_cast<std::byte>(q));
      cache.value.push_back(q * cache.scale[p]);
    }
  }
  return cache;
}

// Scores err by d = (head_dim + 4) 2^-24 scale sum |q k|, differences of scores by 2 d more at most; a probability, the
// quotient of two such exponentials, by the factor e^(4 d) and by (positions + 16) 2^-24 for the sum, the exponential
// (itself within 2e-7) and the division; the weighted sum by (positions + 4) 2^-24. Each position's probability may
// lack 2^-126 where the exponential underflows. A cap adds 8 2^-24 of itself to d.
TEST(ConformanceAttend, AgreesWithTheReferenceAtAllSizes) {
  uint32_t seed = 0;
  for (const auto& row : runnable(attend_kernels())) {
    const auto ref = reference(attend_kernels(), row.variant).run;
    for (uint64_t head_dim : {1, 8, 12, 64, 80, 100, 128}) {
      for (uint64_t positions : {1, 15, 16, 17, 300}) {
        for (uint64_t group = 1; group <= 9; ++group) {
          Random random(++seed);
          const bool saturated = seed % 4 == 0;
          const bool part_of_key = seed % 3 == 1;  // the value is the key's first elements
          const float softcap = seed % 5 == 2 ? 7.0f : 0.0f;
          const uint64_t value_dim = part_of_key ? head_dim - head_dim / 9 : head_dim;
          const uint64_t q_stride = head_dim + seed % 5, out_stride = value_dim + seed % 4;
          const float scale = (seed % 7 == 0 ? 8.0f : 1.0f) / std::sqrt(static_cast<float>(head_dim));
          const std::vector<float> q = random.normals((group - 1) * q_stride + head_dim);
          const Cache k = random_cache(row.variant, positions, head_dim, saturated, false, random);
          // The same draws twice, so that one has the magnitudes of the other.
          const uint32_t of_values = part_of_key ? seed + 1000000 : seed;
          Random same(of_values), again(of_values);
          const Cache v = random_cache(row.variant, positions, head_dim, saturated, false, same);
          const Cache v_magnitude = random_cache(row.variant, positions, head_dim, saturated, true, again);
          ASSERT_EQ(v.value.size(), positions * head_dim)
              << "this test does not know how to fill a cache of " << row.variant;
          const Cache& keys = part_of_key ? v : k;
          std::vector<float> out((group - 1) * out_stride + value_dim, kPoison), expected = out, magnitude = out;
          std::vector<float> scores(group * positions);
          const auto attend = [&](AttendFn run, const Cache& values, std::vector<float>& to) {
            const uint64_t block_positions = seed % 2 ? 64 : 1 + seed % 100;
            BlockedCache cache(positions, block_positions, seed % block_positions);
            AttendArgs args{};
            args.q = q.data();
            args.out = to.data();
            args.scores = scores.data();
            args.group = group;
            args.q_stride = q_stride;
            args.out_stride = out_stride;
            args.head_dim = args.v_stride = head_dim;
            args.value_dim = value_dim;
            args.scale = scale;
            args.softcap = softcap;
            args.k_at = cache.add(keys.bytes.data(), keys.bytes.size() / positions);
            args.v_at = cache.add(values.bytes.data(), values.bytes.size() / positions);
            args.k_scale_at = cache.add(keys.scale.data(), sizeof(float));
            args.v_scale_at = cache.add(values.scale.data(), sizeof(float));
            cache.put_into(args);
            run(args);
          };
          attend(ref, v, expected);
          attend(ref, v_magnitude, magnitude);
          attend(row.run, v, out);
          const float largest = *std::max_element(v_magnitude.value.begin(), v_magnitude.value.end());
          for (uint64_t g = 0; g < group; ++g) {
            double score_magnitude = 0;
            for (uint64_t p = 0; p < positions; ++p) {
              double sum = 0;
              for (uint64_t i = 0; i < head_dim; ++i)
                sum += std::abs(double{q[g * q_stride + i]} * double{keys.value[p * head_dim + i]});
              score_magnitude = std::max(score_magnitude, sum * double{scale});
            }
            const double d =
                static_cast<double>(head_dim + 4) * kRounding * score_magnitude + 8 * kRounding * double{softcap};
            const double n = static_cast<double>(2 * positions + 20);
            for (uint64_t i = 0; i < out_stride && g * out_stride + i < out.size(); ++i) {
              const uint64_t at = g * out_stride + i;
              if (i >= value_dim) {
                ASSERT_EQ(out[at], kPoison) << row.name << " writes between heads, seed " << seed;
                continue;
              }
              const double bound = row.bound * ((std::expm1(4 * d) + n * kRounding) * double{magnitude[at]} +
                                                n * 0x1p-126 * double{largest});
              ASSERT_TRUE(within(out[at], expected[at], bound))
                  << row.name << ": " << out[at] << " for " << expected[at] << ", bound " << bound << ", head_dim "
                  << head_dim << ", positions " << positions << ", head " << g << " of " << group << ", element " << i
                  << ", seed " << seed;
            }
          }
        }
      }
    }
  }
}

TEST(ConformanceQuantize, GivesTheBitsOfTheReference) {
  const float tie = 0.5f;
  for (const auto& row : runnable(quantize_kernels())) {
    ASSERT_EQ(row.bound, 0) << row.name << ": quantize is bit-exact";
    const auto ref = reference(quantize_kernels(), row.variant).run;
    for (uint64_t cols : kWidths) {
      for (int kind = 0; kind < 9; ++kind) {
        Random random(static_cast<uint32_t>(cols) * 16 + static_cast<uint32_t>(kind));
        std::vector<float> x = random.normals(cols);
        for (float& value : x) {
          if (kind == 1) value = random.below(2) ? 0.0f : -0.0f;
          if (kind == 2) value *= 1e30f;
          if (kind == 3) value = random.below(2) ? FLT_MAX : -FLT_MAX;
          if (kind == 4) value *= kQuantizeFloor;  // blocks on both sides of the floor
          if (kind == 5) value *= FLT_MIN;
          if (kind == 6) value = static_cast<float>(random.below(254)) - 127 + tie;  // with the 127 below: all ties
          if (kind == 7) value = random.below(2) ? kQuantizeFloor : std::nextafter(kQuantizeFloor, 0.0f);
          if (kind == 8 && random.below(4)) value = 0;
        }
        if (kind == 6)
          for (uint64_t c = 0; c < cols; c += 32) x[c] = 127;
        const uint64_t blocks = ceil_div(cols, 32);
        struct Result {
          std::vector<int8_t> q;
          std::vector<float> scale;
          std::vector<int32_t> offset;
        };
        const auto quantize = [&](QuantizeFn run) {
          // The second of three tokens: the others' parts keep what they have.
          Result result{std::vector<int8_t>(3 * blocks * 32, int8_t{99}), std::vector<float>(3 * blocks, kPoison),
                        std::vector<int32_t>(3 * blocks, 12345)};
          run({x.data(), cols, 3, result.q.data() + 32, result.scale.data() + 1, result.offset.data() + 1});
          return result;
        };
        const Result expected = quantize(ref), actual = quantize(row.run);
        ASSERT_EQ(actual.q, expected.q) << row.name << ", cols " << cols << ", kind " << kind;
        ASSERT_EQ(std::memcmp(actual.scale.data(), expected.scale.data(), 3 * blocks * 4), 0)
            << row.name << ", cols " << cols << ", kind " << kind;
        ASSERT_EQ(actual.offset, expected.offset) << row.name << ", cols " << cols << ", kind " << kind;
        // What matmul kernels rely on.
        for (uint64_t b = 0; b < blocks; ++b) {
          int32_t sum = 0;
          for (uint64_t i = 0; i < 32; ++i) {
            const int8_t q = actual.q[32 * (3 * b + 1) + i];
            sum += q;
            ASSERT_GE(q, -127);
            ASSERT_TRUE(32 * b + i < cols || q == 0);
            ASSERT_EQ(actual.q[32 * 3 * b + i], 99);
            ASSERT_EQ(actual.q[32 * (3 * b + 2) + i], 99);
          }
          ASSERT_EQ(actual.offset[3 * b + 1], -128 * sum);
          ASSERT_EQ(actual.scale[3 * b], kPoison);
          ASSERT_EQ(actual.offset[3 * b + 2], 12345);
        }
      }
    }
  }
}

TEST(ConformanceToF16, GivesTheBitsOfTheReference) {
  for (const auto& row : runnable(to_f16_kernels())) {
    ASSERT_EQ(row.bound, 0) << row.name;
    const auto ref = reference(to_f16_kernels(), row.variant).run;
    Random random(7);
    for (uint64_t n : {uint64_t{0}, uint64_t{1}, uint64_t{15}, uint64_t{16}, uint64_t{17}, uint64_t{4099}}) {
      std::vector<float> x(n);
      for (float& value : x) {  // any bits, most of them near the range of halves; no NaN, whose payload is free
        const uint32_t near = (random.below(48) + 96) << 23;
        const uint32_t bits = random.below(4) ? near | (random.below(1u << 23)) : random.bits<uint32_t>(1)[0];
        std::memcpy(&value, &bits, 4);
        if (random.below(2)) value = -value;
        if (random.below(8) == 0) value = std::ldexp(static_cast<float>(random.below(4097)) + 0.5f, -25);  // ties
        if (std::isnan(value)) value = INFINITY;
      }
      std::vector<uint16_t> expected(n + 1, 0x1234), actual(n + 1, 0x1234);
      ref({x.data(), expected.data(), n});
      row.run({x.data(), actual.data(), n});
      ASSERT_EQ(actual, expected) << row.name << ", n " << n;
    }
  }
}

// The mean of squares has no cancellation: (width + 2) 2^-24 relative, half of it after the root; 6 for root, quotient
// and products. Squares must stay in float's range.
TEST(ConformanceRmsNorm, AgreesWithTheReferenceAlsoInPlace) {
  uint32_t seed = 0;
  for (const auto& row : runnable(rms_norm_kernels())) {
    const auto ref = reference(rms_norm_kernels(), row.variant).run;
    for (uint64_t width : kWidths) {
      for (uint64_t n_tokens : {1, 2, 5}) {
        for (float scale : {1.0f, 1e15f, 1e-5f, 1e-25f, 0.0f}) {
          Random random(++seed);
          const std::vector<float> x = random.normals(n_tokens * width, scale);
          const std::vector<float> weight = random.normals(width);
          std::vector<float> expected(x.size()), y(x.size());
          ref({x.data(), weight.data(), expected.data(), n_tokens, width, 1e-5f});
          row.run({x.data(), weight.data(), y.data(), n_tokens, width, 1e-5f});
          for (uint64_t i = 0; i < y.size(); ++i) {
            const double n = static_cast<double>(width) / 2 + 7;
            const double bound = row.bound * (n * kRounding * std::abs(double{expected[i]}) + 4 * kUnderflow);
            ASSERT_TRUE(within(y[i], expected[i], bound))
                << row.name << ": " << y[i] << " for " << expected[i] << ", bound " << bound << ", width " << width
                << ", element " << i << ", scale " << scale << ", seed " << seed;
          }
          std::vector<float> in_place = x;
          row.run({in_place.data(), weight.data(), in_place.data(), n_tokens, width, 1e-5f});
          ASSERT_EQ(in_place, y) << row.name << ", seed " << seed;
        }
      }
    }
  }
}

// The exponential is within 2e-7 (4 roundings), sum, quotient and product follow: 8 in all. A rounded exponent e of the
// exponential adds |e| roundings; it is 2 |x| at most here, below where the function is next to nothing. Below -88 the
// exponential stops growing, which leaves at most |gate up| 2^-126.
TEST(ConformanceGlu, AgreesWithTheReference) {
  uint32_t seed = 0;
  for (const auto& row : runnable(glu_kernels())) {
    const auto ref = reference(glu_kernels(), row.variant).run;
    for (uint64_t width : kWidths) {
      for (uint64_t n_tokens : {1, 3}) {
        for (float scale : {1.0f, 30.0f, 1000.0f, 1e-20f, 0.0f}) {
          Random random(++seed);
          const std::vector<float> gate_up = random.normals(n_tokens * 2 * width, scale);
          std::vector<float> expected(n_tokens * width), y(n_tokens * width + 1, kPoison);
          ref({gate_up.data(), expected.data(), n_tokens, width});
          row.run({gate_up.data(), y.data(), n_tokens, width});
          ASSERT_EQ(y.back(), kPoison) << row.name << ", seed " << seed;
          for (uint64_t i = 0; i < expected.size(); ++i) {
            const double gate = gate_up[i / width * 2 * width + i % width];
            const double up = gate_up[i / width * 2 * width + width + i % width];
            const double exponent = row.variant == "silu" ? 0 : std::min(120.0, 3 * std::abs(gate) * (1 + gate * gate));
            const double bound = row.bound * ((8 + exponent) * kRounding * std::abs(double{expected[i]}) +
                                              std::abs(gate * up) * 0x1p-126 + 4 * kUnderflow);
            ASSERT_TRUE(within(y[i], expected[i], bound))
                << row.name << ": " << y[i] << " for " << expected[i] << ", bound " << bound << ", gate " << gate
                << ", seed " << seed;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace upg::kernels
