// How a block's shared memory is laid out, and other numbers of the token's kernel. Needs no GPU.
#include "cuda/pdvm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <vector>

namespace upg::cuda {
namespace {

// What program_builder.h finds for a model of so many columns, with most weights of three bits and some of four.
Machine machine(uint32_t hidden, uint32_t widest_input) {
  Machine m{};
  m.hidden = hidden;
  m.input_blocks = widest_input / 32;
  m.sum_slots = 4;
  m.sum_floats = kWarps * m.sum_slots * 16;
  m.most_panels = 17;
  m.readings_count = 200;
  m.widest_step = step_bytes(4);
  m.slot_bytes = 2 * step_bytes(3);
  return m;
}

constexpr uint32_t kHopper = 227 << 10, kAda = 99 << 10, kTuring = 64 << 10;  // bytes that a block may have

TEST(SharedMemory, HasUnitsOfTwoStepsWhereThereIsRoom) {
  Machine m = machine(5120, 8960);
  ASSERT_TRUE(fit_shared_memory(&m, kHopper, true));
  EXPECT_EQ(m.slot_bytes, 2 * step_bytes(3));
  EXPECT_EQ(unit_steps(m.slot_bytes, 3), 2u);
  EXPECT_EQ(unit_steps(m.slot_bytes, 4), 1u) << "which is no reason for larger slots";
  EXPECT_GE(m.slots, 3u);
  EXPECT_LE(m.shared_bytes, kHopper);
}

TEST(SharedMemory, HasUnitsOfOneStepWhereThereIsLess) {
  Machine m = machine(3072, 8192);  // Llama 3.2 3B
  m.widest_step = step_bytes(3);    // all of three bits
  ASSERT_TRUE(fit_shared_memory(&m, kAda, false));
  EXPECT_EQ(m.slot_bytes, step_bytes(3));
  EXPECT_EQ(m.slots, 2u);
  EXPECT_LE(m.shared_bytes, kAda);
}

TEST(SharedMemory, RefusesWhatDoesNotFit) {
  Machine small = machine(1024, 3072), large = machine(5120, 8960);
  EXPECT_FALSE(fit_shared_memory(&small, kTuring, false));
  EXPECT_FALSE(fit_shared_memory(&large, kAda, false));
}

TEST(SharedMemory, PlacesDoNotOverlapButForAttention) {
  Machine m = machine(5120, 8960);
  m.residual_columns = 512;
  ASSERT_TRUE(fit_shared_memory(&m, kHopper, true));
  const SharedPlaces& p = m.places;
  const uint32_t order[] = {p.q,      p.zero,  p.sums,     p.spans,    p.x,     p.stream,
                            p.reduce, p.steps, p.readings, p.barriers, p.rings, m.shared_bytes};
  for (size_t i = 1; i < std::size(order); ++i) EXPECT_LT(order[i - 1], order[i]) << i;
  EXPECT_GE(p.zero - p.q, 32 * m.input_blocks);
  EXPECT_GE(p.sums - p.zero, 4 * m.input_blocks);
  EXPECT_GE(p.spans - p.sums, 4 * m.sum_floats);
  EXPECT_GE(p.spans - p.q, 4 * kAttendFloats) << "attention has all of these";
  EXPECT_EQ(p.rings % 128, 0u);
  EXPECT_GE(m.shared_bytes - p.rings, kWarps * m.slots * m.slot_bytes);
}

// As a device divides: by a product and its high half.
TEST(Divide, IsDivisionUpToTheEndsOf32Bits) {
  for (const uint32_t n :
       {1u, 2u, 3u, 7u, 10u, 17u, 20u, 35u, 64u, 65535u, 65536u, 0x7fffffffu, 0x80000000u, UINT32_MAX})
    for (const uint32_t whole : {0u, 1u, 2u, 1000u, UINT32_MAX / n})
      for (const uint32_t rest : {0u, 1u, n / 2, n - 1}) {
        const uint64_t a = uint64_t{whole} * n + std::min(rest, n - 1);
        if (a > UINT32_MAX) continue;
        const Quotient q = divide(static_cast<uint32_t>(a), n, inverse_of(n));
        EXPECT_EQ(q.whole, a / n) << a << " / " << n;
        EXPECT_EQ(q.rest, a % n) << a << " / " << n;
      }
}

TEST(UnpairedRow, GivesEachRowOfTheFileOnce) {
  constexpr uint32_t kRows = 48;
  std::vector<uint32_t> rows;
  for (uint32_t i = 0; i < kRows; ++i) rows.push_back(unpaired_row(i, kRows));
  EXPECT_EQ(rows[0], 0u);
  EXPECT_EQ(rows[8], kRows / 2) << "what the first gate is for";
  EXPECT_EQ(rows[16], 8u);
  EXPECT_EQ(rows[47], 47u);
  std::sort(rows.begin(), rows.end());
  for (uint32_t i = 0; i < kRows; ++i) EXPECT_EQ(rows[i], i);
}

}  // namespace
}  // namespace upg::cuda
