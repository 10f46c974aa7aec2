// The trellis layout on a GPU: decodes random tiles in a kernel, by PRMT lookups where the table has 8 entries a state,
// and compares every weight with the host's scalar decode. There are no CUDA inference kernels yet; this keeps the
// layout header compiling for the device and shows that one layout serves both. Exit status 77: no device.
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "codec/layout/trellis.h"

#define CHECK(call)                                                                        \
  do {                                                                                     \
    const cudaError_t status = (call);                                                     \
    if (status != cudaSuccess) {                                                           \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, cudaGetErrorString(status)); \
      std::exit(1);                                                                        \
    }                                                                                      \
  } while (0)

using namespace upg;

// One lane of a tile, as the layout defines it: words 16 apart, table [2][16] -> levels [32].
__host__ __device__ void decode_lane(const uint32_t* words, const int8_t* table, unsigned bits, int8_t* levels) {
  unsigned state = trellis_first_state(words, 16, bits);
  for (unsigned nibble = 0; nibble < 8; ++nibble) {
    for (unsigned plane = 0; plane < kTrellisPlanes; ++plane) {
      const unsigned code = trellis_code(words, 16, bits, plane, nibble);
      levels[trellis_column(plane, nibble)] = table[16 * trellis_row(state) + (code ^ trellis_flip(state))];
      state = trellis_next_state(state, code);
    }
  }
}

// words [tiles][bits][16] -> levels [tiles][16][32]; one thread a lane.
__global__ void decode_scalar(const uint32_t* words, const int8_t* table, unsigned bits, unsigned tiles,
                              int8_t* levels) {
  const unsigned lane = (blockIdx.x * blockDim.x + threadIdx.x) % 16;
  const unsigned tile = (blockIdx.x * blockDim.x + threadIdx.x) / 16;
  if (tile < tiles) decode_lane(words + tile * bits * 16 + lane, table, bits, levels + (tile * 16 + lane) * 32);
}

// The same for 3 bits by PRMT: a word's 16-bit half selects four bytes from the 8 entries of each row of the table,
// and the low bits of the plane two places back pick between the two.
__global__ void decode_prmt3(const uint32_t* words, uint2 even, uint2 odd, unsigned tiles, int8_t* levels) {
  const unsigned lane = (blockIdx.x * blockDim.x + threadIdx.x) % 16;
  const unsigned tile = (blockIdx.x * blockDim.x + threadIdx.x) / 16;
  if (tile >= tiles) return;
  const uint32_t* w = words + tile * 48 + lane;
  const uint32_t a = w[0], b = w[16], c = w[32];
  const uint32_t d = ((a >> 3) & 0x11111111u) | ((b >> 2) & 0x22222222u) | ((c >> 1) & 0x44444444u);
  const uint32_t plane[7] = {__funnelshift_l(b, b, 4), __funnelshift_l(c, c, 4), __funnelshift_l(d, d, 4), a, b, c, d};
  for (unsigned p = 0; p < 4; ++p) {
    for (unsigned half = 0; half < 2; ++half) {
      const uint32_t flip = (plane[p] ^ plane[p + 2]) & 0x11111111u;
      const uint32_t code = ((plane[p + 3] & 0x77777777u) ^ flip) >> (16 * half);
      const uint32_t row = plane[p + 1] >> (16 * half);
      const uint32_t t0 = __byte_perm(even.x, even.y, code);
      const uint32_t t1 = __byte_perm(odd.x, odd.y, code);
      // Selector nibble i takes byte i of t0, or of t1 (i + 4) in row 1.
      const uint32_t bytes = __byte_perm(t0, t1, 0x3210u | ((row & 0x1111u) << 2));
      for (unsigned i = 0; i < 4; ++i)
        levels[(tile * 16 + lane) * 32 + trellis_column(p, 4 * half + i)] = static_cast<int8_t>(bytes >> (8 * i));
    }
  }
}

static uint2 pack8(const int8_t* entries) {
  uint2 packed;
  std::memcpy(&packed, entries, 8);
  return packed;
}

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("no CUDA device: the trellis tile test did not run\n");
    return 77;
  }
  std::mt19937 random(20240607);
  unsigned failures = 0;
  for (unsigned bits = 2; bits <= 4; ++bits) {
    const unsigned tiles = 1000;
    std::vector<uint32_t> words(tiles * bits * 16);
    for (uint32_t& word : words) word = random();
    int8_t table[2][16] = {};
    for (unsigned h = 0; h < (1u << bits); ++h)
      table[0][h] = static_cast<int8_t>(static_cast<int>(random() % 255) - 127);
    for (unsigned h = 0; h < (1u << bits); ++h) table[1][h] = static_cast<int8_t>(-table[0][(1u << bits) - 1 - h]);

    std::vector<int8_t> expected(tiles * 512);
    for (unsigned t = 0; t < tiles; ++t)
      for (unsigned lane = 0; lane < 16; ++lane)
        decode_lane(words.data() + t * bits * 16 + lane, table[0], bits, expected.data() + (t * 16 + lane) * 32);

    uint32_t* device_words;
    int8_t *device_table, *device_levels;
    CHECK(cudaMalloc(&device_words, words.size() * 4));
    CHECK(cudaMalloc(&device_table, sizeof table));
    CHECK(cudaMalloc(&device_levels, expected.size()));
    CHECK(cudaMemcpy(device_words, words.data(), words.size() * 4, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(device_table, table, sizeof table, cudaMemcpyHostToDevice));
    auto compare = [&](const char* name) {
      CHECK(cudaGetLastError());
      std::vector<int8_t> got(expected.size());
      CHECK(cudaMemcpy(got.data(), device_levels, got.size(), cudaMemcpyDeviceToHost));
      const bool same = got == expected;
      std::printf("%s, %u bits: %s\n", name, bits, same ? "passed" : "FAILED");
      failures += !same;
      CHECK(cudaMemset(device_levels, 0x55, expected.size()));
    };
    CHECK(cudaMemset(device_levels, 0x55, expected.size()));
    decode_scalar<<<(tiles * 16 + 255) / 256, 256>>>(device_words, device_table, bits, tiles, device_levels);
    compare("scalar");
    if (bits == 3) {
      decode_prmt3<<<(tiles * 16 + 255) / 256, 256>>>(device_words, pack8(table[0]), pack8(table[1]), tiles,
                                                      device_levels);
      compare("PRMT");
    }
    CHECK(cudaFree(device_words));
    CHECK(cudaFree(device_table));
    CHECK(cudaFree(device_levels));
  }
  return failures != 0;
}
