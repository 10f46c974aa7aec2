// The scalar reference of every op: double accumulation, one thread, any codec. What fast kernels are compared with.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/float16.h"
#include "codec/codec.h"
#include "kernels/kernel.h"

namespace upg::kernels {

void gemv_any_f32__ref(const GemvArgs& args) noexcept {
  std::vector<float> row(args.matrix->cols);
  for (uint64_t r = args.row_begin; r < args.row_end; ++r) {
    args.matrix->codec->decode_row(*args.matrix, r, row.data());
    double sum = 0;
    for (uint64_t c = 0; c < row.size(); ++c) sum += static_cast<double>(row[c]) * args.x[c];
    args.y[r] = static_cast<float>(sum);
  }
}

void matmul_any_q8__ref(const MatmulArgs& args) noexcept {
  std::vector<float> row(args.matrix->cols);
  for (uint64_t r = args.row_begin; r < args.row_end; ++r) {
    args.matrix->codec->decode_row(*args.matrix, r, row.data());
    for (uint64_t t = 0; t < args.n_tokens; ++t) {
      double sum = 0;
      for (uint64_t c = 0; c < row.size(); ++c) {
        const uint64_t block = c / 32 * args.n_tokens + t;
        sum += static_cast<double>(row[c]) * args.q8.q[32 * block + c % 32] * static_cast<double>(args.q8.scale[block]);
      }
      args.y[t * args.y_stride + r] = static_cast<float>(sum);
    }
  }
}

void unpack_any__ref(const UnpackArgs& args) noexcept {
  const uint64_t rows = args.matrix->rows;
  std::vector<float> row(args.matrix->cols);
  for (uint64_t j = 0; j < 16; ++j) {
    const uint64_t r = args.panel * 16 + j;
    if (r < rows) args.matrix->codec->decode_row(*args.matrix, r, row.data());
    for (uint64_t c = args.col_begin; c < args.col_end; ++c)
      args.out[(c - args.col_begin) * 16 + j] = r < rows ? row[c] : 0.0f;
  }
}

void gemm_f32__ref(const GemmArgs& args) noexcept {
  for (uint64_t t = 0; t < args.n_tokens; ++t) {
    for (uint64_t r = 0; r < 16 * args.panels; ++r) {
      double sum = args.y[t * args.y_stride + r];
      for (uint64_t k = 0; k < args.depth; ++k)
        sum += static_cast<double>(args.a[(r / 16 * args.depth + k) * 16 + r % 16]) * args.x[t * args.x_stride + k];
      args.y[t * args.y_stride + r] = static_cast<float>(sum);
    }
  }
}

namespace {

// `cache(position, i)` is element i of a position's key or value.
template <typename Key, typename Value>
void attend(const AttendArgs& args, Key key, Value value) {
  std::vector<double> probability(args.n_positions);
  std::vector<double> out(args.value_dim);
  for (uint64_t g = 0; g < args.group; ++g) {
    double largest = -INFINITY;
    for (uint64_t p = 0; p < args.n_positions; ++p) {
      double score = 0;
      for (uint64_t i = 0; i < args.head_dim; ++i)
        score += static_cast<double>(args.q[g * args.q_stride + i]) * key(p, i);
      probability[p] = score * args.scale;
      if (args.softcap != 0) probability[p] = args.softcap * std::tanh(probability[p] / args.softcap);
      largest = std::max(largest, probability[p]);
    }
    double total = 0;
    for (double& p : probability) total += p = std::exp(p - largest);
    std::fill(out.begin(), out.end(), 0.0);
    for (uint64_t p = 0; p < args.n_positions; ++p)
      for (uint64_t i = 0; i < args.value_dim; ++i) out[i] += probability[p] / total * value(p, i);
    for (uint64_t i = 0; i < args.value_dim; ++i) args.out[g * args.out_stride + i] = static_cast<float>(out[i]);
  }
}

}  // namespace

namespace {

// Element i of a block's array of vectors `stride` elements long, for position p.
template <typename T>
T element_of(const AttendArgs& args, uint64_t at, uint64_t stride, uint64_t p, uint64_t i) {
  const uint64_t place = args.first + p;
  const unsigned char* memory = args.blocks[place / args.block_positions] + at;
  T x;
  std::memcpy(&x, memory + (place % args.block_positions * stride + i) * sizeof x, sizeof x);
  return x;
}

template <typename T>
T key_of(const AttendArgs& args, uint64_t p, uint64_t i) {
  return element_of<T>(args, args.k_at, args.head_dim, p, i);
}
template <typename T>
T value_of(const AttendArgs& args, uint64_t p, uint64_t i) {
  return element_of<T>(args, args.v_at, args.v_stride, p, i);
}

}  // namespace

void attend_f32__ref(const AttendArgs& args) noexcept {
  attend(
      args, [&](uint64_t p, uint64_t i) -> double { return key_of<float>(args, p, i); },
      [&](uint64_t p, uint64_t i) -> double { return value_of<float>(args, p, i); });
}

void attend_f16__ref(const AttendArgs& args) noexcept {
  attend(
      args, [&](uint64_t p, uint64_t i) -> double { return f16_to_float(key_of<uint16_t>(args, p, i)); },
      [&](uint64_t p, uint64_t i) -> double { return f16_to_float(value_of<uint16_t>(args, p, i)); });
}

void attend_int8__ref(const AttendArgs& args) noexcept {
  const auto scale = [&](uint64_t at, uint64_t p) -> double { return element_of<float>(args, at, 1, p, 0); };
  attend(
      args, [&](uint64_t p, uint64_t i) { return scale(args.k_scale_at, p) * key_of<int8_t>(args, p, i); },
      [&](uint64_t p, uint64_t i) { return scale(args.v_scale_at, p) * value_of<int8_t>(args, p, i); });
}

void quantize_q8__ref(const QuantizeArgs& args) noexcept {
  for (uint64_t begin = 0; begin < args.cols; begin += 32) {
    const uint64_t block = begin / 32 * args.stride;
    const uint64_t end = std::min(begin + 32, args.cols);
    float largest = 0;
    for (uint64_t c = begin; c < end; ++c) largest = std::max(largest, std::abs(args.x[c]));
    float scale = 0;
    if (largest >= kQuantizeFloor) {
      int exponent;
      const float mantissa = std::frexp(largest / 127.0f, &exponent);  // in [1/2, 1)
      scale = std::ldexp(1.0f, mantissa == 0.5f ? exponent - 1 : exponent);
    }
    const float inverse = scale > 0 ? 1 / scale : 0.0f;
    int32_t sum = 0;
    for (uint64_t c = begin; c < begin + 32; ++c) {
      const float rounded = c < end ? std::nearbyint(args.x[c] * inverse) : 0.0f;
      const int8_t q = std::abs(rounded) <= 127 ? static_cast<int8_t>(rounded) : int8_t{0};  // NaN: any value will do
      args.q[32 * block + c - begin] = q;
      sum += q;
    }
    args.scale[block] = scale;
    args.offset[block] = -128 * sum;
  }
}

void to_f16_f32__ref(const ToF16Args& args) noexcept {
  for (uint64_t i = 0; i < args.n; ++i) args.y[i] = float_to_f16(args.x[i]);
}

void rms_norm_f32__ref(const RmsNormArgs& args) noexcept {
  for (uint64_t t = 0; t < args.n_tokens; ++t) {
    const float* x = args.x + t * args.width;
    double power = 0;
    for (uint64_t i = 0; i < args.width; ++i) power += static_cast<double>(x[i]) * x[i];
    const double scale = 1 / std::sqrt(power / static_cast<double>(args.width) + args.epsilon);
    for (uint64_t i = 0; i < args.width; ++i)
      args.y[t * args.width + i] = static_cast<float>(x[i] * scale * args.weight[i]);
  }
}

namespace {

template <typename Function>
void glu(const GluArgs& args, Function f) {
  for (uint64_t t = 0; t < args.n_tokens; ++t) {
    const float* gate = args.gate_up + 2 * t * args.width;
    for (uint64_t i = 0; i < args.width; ++i)
      args.y[t * args.width + i] = static_cast<float>(f(static_cast<double>(gate[i])) * gate[args.width + i]);
  }
}

}  // namespace

void glu_silu__ref(const GluArgs& args) noexcept {
  glu(args, [](double x) { return x / (1 + std::exp(-x)); });
}

void glu_gelu_tanh__ref(const GluArgs& args) noexcept {
  // (1 + tanh(u)) / 2 = 1 / (1 + e^(-2 u)), which keeps its digits where u is far below 0.
  glu(args, [](double x) { return x / (1 + std::exp(-2 * 0.79788456080286536 * (x + 0.044715 * x * x * x))); });
}

void glu_gelu__ref(const GluArgs& args) noexcept {
  glu(args, [](double x) { return 0.5 * x * (1 + std::erf(x * 0.70710678118654752)); });
}

}  // namespace upg::kernels
