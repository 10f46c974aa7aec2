// What each op takes: plain structs, and the type of its kernels. No standard library beyond integers, because sources
// compiled for one instruction set include this.
#pragma once

#include <stdint.h>

namespace upg {
struct Matrix;
}

namespace upg::kernels {

/// y[r] = sum_c W[r, c] x[c] for row_begin <= r < row_end: one token, float activations. row_begin is a multiple of 16;
/// row_end too, or rows.
struct GemvArgs {
  const void* weights;   // the codec's layout struct
  const Matrix* matrix;  // the same, for the reference kernels, which decode through the codec
  const float* x;        // [cols]
  float* y;              // [rows]
  uint64_t row_begin;
  uint64_t row_end;
};
using GemvFn = void (*)(const GemvArgs&) noexcept;

/// Activations of n tokens in int8, quantised in blocks of 32: value = q * scale of token and block. Scales are powers
/// of two or 0.
struct Q8Tokens {
  const int8_t* q;        // [blocks, n_tokens, 32], zero past the last column
  const float* scale;     // [blocks, n_tokens]
  const int32_t* offset;  // [blocks, n_tokens], -128 times the sum of the 32 q: what weights biased by 128 add, negated
};

/// y[t][r] = sum_c W[r, c] x[t][c] for t < n_tokens and row_begin <= r < row_end, from int8 activations. row_begin is a
/// multiple of 16; row_end too, or rows. A token's results have the same bits whatever other tokens are with it.
struct MatmulArgs {
  const void* weights;
  const Matrix* matrix;
  const float* x;  // [n_tokens, cols], for weights that are kept apart (a trellis' residual)
  Q8Tokens q8;
  float* y;  // [n_tokens, rows], y_stride apart
  uint64_t n_tokens;
  uint64_t y_stride;
  uint64_t row_begin;
  uint64_t row_end;
};
using MatmulFn = void (*)(const MatmulArgs&) noexcept;

/// Decodes 16 rows (a panel; rows past the last give 0) of columns [col_begin, col_end) to out [col_end -
/// col_begin][16]. col_begin is a multiple of 32. Bit-exact with Codec::decode_row.
struct UnpackArgs {
  const void* weights;
  const Matrix* matrix;
  uint64_t panel;
  uint64_t col_begin;
  uint64_t col_end;
  float* out;
};
using UnpackFn = void (*)(const UnpackArgs&) noexcept;

/// y[t][r] += sum_k a[r / 16][k][r % 16] x[t][k] for t < n_tokens and r < 16 * panels.
struct GemmArgs {
  const float* a;   // [panels][depth][16], from unpack
  const float* x;   // n_tokens rows of `depth` floats, x_stride apart
  float* y;         // n_tokens rows of 16 * panels floats, y_stride apart
  uint64_t panels;  // 1 or 2
  uint64_t depth;
  uint64_t n_tokens;
  uint64_t x_stride;
  uint64_t y_stride;
};
using GemmFn = void (*)(const GemmArgs&) noexcept;

/// Attention of `group` query heads that share one head of keys and values, over positions [0, n_positions):
/// out[g] = softmax(cap(scale * q[g] . k)) v, with cap(s) = softcap * tanh(s / softcap) where softcap is not 0. Keys
/// and values lie in blocks, of consecutive positions each; values may be a part of keys.
struct AttendArgs {
  const float* q;                      // [group, head_dim], q_stride apart
  const unsigned char* const* blocks;  // of block_positions positions each, and in each of them,
  uint64_t k_at;                       // so many bytes from its begin: [block_positions, head_dim] of the cache's type
  uint64_t v_at;                       // [block_positions, value_dim], v_stride elements apart
  uint64_t k_scale_at;                 // [block_positions] floats, int8 only
  uint64_t v_scale_at;                 // the same
  uint64_t block_positions;
  uint64_t first;  // the place of position 0 in the first block
  float* out;      // [group, value_dim], out_stride apart
  float* scores;   // scratch [group, n_positions]
  uint64_t group;
  uint64_t q_stride;
  uint64_t out_stride;
  uint64_t head_dim;
  uint64_t value_dim;
  uint64_t v_stride;
  uint64_t n_positions;
  float scale;
  float softcap;
};
using AttendFn = void (*)(const AttendArgs&) noexcept;

/// A block whose largest |x| is below this quantises to zero: the inverse of its scale must stay finite.
inline constexpr float kQuantizeFloor = 0x1p-100f;

/// One token's part of Q8Tokens: in each block of 32 the scale is the least power of two not below max|x| / 127; q
/// rounds to nearest even. Blocks lie `stride` tokens apart.
struct QuantizeArgs {
  const float* x;  // [cols]
  uint64_t cols;
  uint64_t stride;
  int8_t* q;        // block b at 32 * b * stride
  float* scale;     // block b at b * stride
  int32_t* offset;  // the same
};
using QuantizeFn = void (*)(const QuantizeArgs&) noexcept;

/// y[i] = x[i] as an IEEE half, rounded to nearest even; beyond its range infinite.
struct ToF16Args {
  const float* x;  // [n]
  uint16_t* y;     // [n]
  uint64_t n;
};
using ToF16Fn = void (*)(const ToF16Args&) noexcept;

/// y[t] = x[t] / sqrt(mean(x[t]^2) + epsilon) * weight
struct RmsNormArgs {
  const float* x;       // [n_tokens, width]
  const float* weight;  // [width]
  float* y;             // [n_tokens, width]; may be x
  uint64_t n_tokens;
  uint64_t width;
  float epsilon;
};
using RmsNormFn = void (*)(const RmsNormArgs&) noexcept;

/// y[t][i] = f(gate_up[t][i]) * gate_up[t][width + i] (Shazeer 2020), f as the variant says: silu, gelu, or gelu_tanh,
/// its approximation 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
struct GluArgs {
  const float* gate_up;  // [n_tokens, 2, width]
  float* y;              // [n_tokens, width]
  uint64_t n_tokens;
  uint64_t width;
};
using GluFn = void (*)(const GluArgs&) noexcept;

}  // namespace upg::kernels
