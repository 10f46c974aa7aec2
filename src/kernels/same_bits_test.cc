// The kernels of every instruction set give the same bits, on x86 and AArch64 alike, so that a model says the same
// everywhere. Each row is compared with the hash that all of them gave when it was written down. The references sum in
// double and are left out; so are MdCSR rows, whose sums follow the width of their registers.
#include <map>

#include "codec/codec_table.h"
#include "kernels/test_products.h"
#include "kernels/test_util.h"

namespace upg::kernels {
namespace {

// Integers made floats: the same on every machine, which a normal distribution's logarithms are not.
class Numbers {
 public:
  std::vector<float> floats(size_t n, float scale = 1) {
    std::vector<float> values(n);
    for (float& x : values) x = scale * static_cast<float>(static_cast<int32_t>(generator_())) * 0x1p-30f;
    return values;
  }
  std::vector<uint8_t> bytes(size_t n) {
    std::vector<uint8_t> values(n);
    for (uint8_t& x : values) x = static_cast<uint8_t>(generator_());
    return values;
  }

 private:
  std::mt19937 generator_{1};
};

class Hash {  // FNV-1a
 public:
  template <typename T>
  void add(const std::vector<T>& values) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(values.data());
    for (size_t i = 0; i < values.size() * sizeof(T); ++i) value_ = (value_ ^ bytes[i]) * 0x100000001b3;
  }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0xcbf29ce484222325;
};

// By op and variant.
const std::map<std::string, uint64_t> kExpected = {
    {"attend_f16", 0x42a44397628a564a},      {"attend_f32", 0x6e454efc1a76192d},
    {"attend_int8", 0x9fa4ff0c39e62061},     {"gemm_f32", 0xd1d3f35a9f4f9cf0},
    {"gemv_bf16_f32", 0x7b6acbdf3e30e250},   {"gemv_f16_f32", 0xb834c33b06e90103},
    {"gemv_f32_f32", 0x4ed94dc62be37633},    {"gemv_int8_f32", 0x616a99508a43c036},
    {"matmul_trellis2", 0x4310c2f5fbbcca4c}, {"matmul_trellis3", 0x6122ae4c716d58d0},
    {"matmul_trellis4", 0x27c6ad4f7212bbb3}, {"quantize_q8", 0xacf74ccc57378e05},
    {"rms_norm_f32", 0x92c579cd68a18016},    {"glu_silu", 0xab4ce837dce69bd4},
    {"glu_gelu_tanh", 0xd02be35a6ae3f33b},
};

void expect(const std::string& what, std::string_view row, const Hash& hash) {
  const auto found = kExpected.find(what);
  ASSERT_NE(found, kExpected.end()) << fmt::format("{{\"{}\", {:#018x}}},", what, hash.value());
  EXPECT_EQ(hash.value(), found->second) << row;
}

template <typename Fn, typename Run>
void each_row(std::string_view op, std::span<const Kernel<Fn>> list, Run run) {
  for (const auto& row : list) {
    if (row.isa == "ref" || !isa_available(row.isa) || row.variant.starts_with("mdcsr")) continue;
    Hash hash;
    run(row, hash);
    expect(fmt::format("{}_{}", op, row.variant), row.name, hash);
  }
}

// Any bytes are codes; scales are bfloat16 near 2^-6 and 2^-5.
EncodedMatrix trellis(const Codec& codec, uint64_t rows, uint64_t cols) {
  EncodedMatrix encoded = codec.encode(rows, cols,
                                       [](uint64_t, std::span<float> out) {
                                         for (size_t c = 0; c < out.size(); ++c) out[c] = static_cast<float>(c % 7) - 3;
                                       },
                                       {});
  Numbers numbers;
  for (auto& part : encoded.components) {
    if (part.suffix == "codes" || part.suffix == "block_scales") {
      const std::vector<uint8_t> bytes = numbers.bytes(part.data.size());
      std::memcpy(part.data.data(), bytes.data(), bytes.size());
    }
  }
  return encoded;
}

TEST(SameBits, Matmul) {
  constexpr uint64_t kRows = 49, kCols = 290, kTokens = 5;
  const QuantizeFn quantize = reference(quantize_kernels(), "q8").run;
  for (const Codec* codec : codecs()) {
    if (codec->activation != "q8") continue;
    const EncodedMatrix encoded = trellis(*codec, kRows, kCols);
    const Matrix matrix = open_encoded(encoded);
    const Activations x(Numbers().floats(kTokens * kCols), kTokens, quantize);
    for (const Product& row : products(*codec)) {
      if (row.isa == "ref") continue;
      std::vector<float> y(kTokens * kRows);
      row.run(matrix, x, y.data(), kRows, 0, kRows);
      Hash hash;
      hash.add(y);
      expect("matmul_" + std::string(codec->id), row.name, hash);
    }
  }
}

TEST(SameBits, GemvOfDenseRows) {
  constexpr uint64_t kRows = 21, kCols = 75;
  each_row("gemv", gemv_kernels(), [&](const auto& row, Hash& hash) {
    const std::string id(row.variant.substr(0, row.variant.find('_')));
    const Codec& codec = find_codec(id);
    const std::vector<float> weights = Numbers().floats(kRows * kCols);
    const EncodedMatrix encoded = codec.encode(
        kRows, kCols,
        [&](uint64_t r, std::span<float> out) { std::copy_n(weights.data() + r * kCols, kCols, out.data()); }, {});
    const Matrix matrix = open_encoded(encoded);
    const std::vector<float> x = Numbers().floats(kCols);
    std::vector<float> y(kRows);
    row.run({matrix.layout.get(), &matrix, x.data(), y.data(), 0, kRows});
    hash.add(y);
  });
}

TEST(SameBits, Gemm) {
  each_row("gemm", gemm_kernels(), [](const auto& row, Hash& hash) {
    constexpr uint64_t kDepth = 67, kTokens = 29;
    Numbers numbers;
    const std::vector<float> a = numbers.floats(2 * kDepth * 16), x = numbers.floats(kTokens * kDepth);
    std::vector<float> y = numbers.floats(kTokens * 32);
    row.run({a.data(), x.data(), y.data(), 2, kDepth, kTokens, kDepth, 32});
    hash.add(y);
  });
}

TEST(SameBits, Attend) {
  each_row("attend", attend_kernels(), [](const auto& row, Hash& hash) {
    for (auto [group, head_dim, positions] : {std::array<uint64_t, 3>{4, 128, 131}, {1, 40, 70}, {5, 66, 3}}) {
      Numbers numbers;
      const uint64_t n = positions * head_dim;
      const std::vector<float> q = numbers.floats(group * head_dim), scales = numbers.floats(positions, 0.01f);
      // 2 and 3 in f16 and int8 alike are plain numbers: bytes 0x40 to 0x43 and 0xc0.
      std::vector<uint8_t> k = numbers.bytes(4 * n), v = numbers.bytes(4 * n);
      for (std::vector<uint8_t>* bytes : {&k, &v})
        for (size_t i = 1; i < bytes->size(); i += 2) (*bytes)[i] = static_cast<uint8_t>(((*bytes)[i] & 0x83) | 0x3c);
      std::vector<float> out(group * head_dim), scratch(group * positions);
      const uint64_t bytes = head_dim * (row.variant == "f32" ? 4 : row.variant == "f16" ? 2 : 1);
      AttendArgs args{};
      args.q = q.data();
      args.out = out.data();
      args.scores = scratch.data();
      args.group = group;
      args.q_stride = args.out_stride = args.head_dim = args.value_dim = args.v_stride = head_dim;
      args.scale = 0.05f;
      // However they lie, the bits are the same.
      std::vector<float> whole;
      for (auto [block_positions, first] : {std::array<uint64_t, 2>{256, 0}, {64, 0}, {64, 61}, {3, 2}}) {
        BlockedCache cache(positions, block_positions, first);
        args.k_at = cache.add(k.data(), bytes);
        args.v_at = cache.add(v.data(), bytes);
        args.k_scale_at = args.v_scale_at = cache.add(scales.data(), sizeof(float));
        cache.put_into(args);
        row.run(args);
        if (whole.empty()) whole = out;
        EXPECT_EQ(out, whole) << row.name << " in blocks of " << block_positions << " from " << first;
      }
      hash.add(whole);
    }
  });
}

TEST(SameBits, Quantize) {
  each_row("quantize", quantize_kernels(), [](const auto& row, Hash& hash) {
    const std::vector<float> x = Numbers().floats(331, 3);
    std::vector<int8_t> q(352);
    std::vector<float> scale(11);
    std::vector<int32_t> offset(11);
    row.run({x.data(), x.size(), 1, q.data(), scale.data(), offset.data()});
    hash.add(q);
    hash.add(scale);
    hash.add(offset);
  });
}

TEST(SameBits, RmsNorm) {
  each_row("rms_norm", rms_norm_kernels(), [](const auto& row, Hash& hash) {
    Numbers numbers;
    const std::vector<float> x = numbers.floats(3 * 523), weight = numbers.floats(523);
    std::vector<float> y(x.size());
    row.run({x.data(), weight.data(), y.data(), 3, 523, 1e-5f});
    hash.add(y);
  });
}

TEST(SameBits, Glu) {
  each_row("glu", glu_kernels(), [](const auto& row, Hash& hash) {
    const std::vector<float> gate_up = Numbers().floats(2 * 2 * 83, 8);
    std::vector<float> y(2 * 83);
    row.run({gate_up.data(), y.data(), 2, 83});
    hash.add(y);
  });
}

}  // namespace
}  // namespace upg::kernels
