// The KV cache: what is stored comes back through attention, types by name, memory by arithmetic.
#include "model/kv_cache.h"

#include "format/test_util.h"

namespace upg {
namespace {

using ::testing::HasSubstr;
using testing_util::error_of;

constexpr KvShape kShape{2, 3, 10};

// Attention over the single position `position` returns its value vector whatever the query.
std::vector<float> value_at(const KvCache& cache, uint64_t layer, uint64_t head, uint64_t position) {
  std::vector<float> query(kShape.head_dim, 0.5f), out(kShape.head_dim), scores(1);
  kernels::AttendArgs args{};
  args.q = query.data();
  args.out = out.data();
  args.scores = scores.data();
  args.group = 1;
  args.q_stride = kShape.head_dim;
  args.scale = 1;
  cache.attend(layer, head, position, position + 1, args);
  return out;
}

class KvCacheTypes : public ::testing::TestWithParam<std::string_view> {};

TEST_P(KvCacheTypes, EveryLayerHeadAndPositionHasAPlaceOfItsOwn) {
  constexpr uint64_t kCapacity = 5;
  KvCache cache(kShape, kCapacity, find_kv_type(GetParam()));
  EXPECT_EQ(cache.capacity(), kCapacity);
  EXPECT_EQ(cache.length(), 0u);
  auto element = [](uint64_t layer, uint64_t head, uint64_t position, uint64_t i) {
    return static_cast<float>(layer * 31 + head * 17 + position * 5 + i) - 20.0f;
  };
  std::vector<float> vector(kShape.head_dim);
  for (uint64_t l = 0; l < kShape.layers; ++l)
    for (uint64_t h = 0; h < kShape.heads; ++h)
      for (uint64_t p = 0; p < kCapacity; ++p) {
        for (uint64_t i = 0; i < vector.size(); ++i) vector[i] = element(l, h, p, i);
        cache.store(l, h, p, vector.data(), vector.data());
      }
  for (uint64_t l = 0; l < kShape.layers; ++l)
    for (uint64_t h = 0; h < kShape.heads; ++h)
      for (uint64_t p = 0; p < kCapacity; ++p) {
        const std::vector<float> out = value_at(cache, l, h, p);
        for (uint64_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out[i], element(l, h, p, i), 0.5f);
      }
}

TEST_P(KvCacheTypes, TinyAndZeroVectorsStayFinite) {
  KvCache cache(kShape, 1, find_kv_type(GetParam()));
  for (float x : {0.0f, 1e-44f, -1e-38f, 1e-30f}) {
    const std::vector<float> vector(kShape.head_dim, x);
    cache.store(0, 0, 0, vector.data(), vector.data());
    for (float out : value_at(cache, 0, 0, 0)) EXPECT_NEAR(out, 0, 1e-7);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, KvCacheTypes, ::testing::Values("f16", "int8"),
                         [](const auto& test) { return std::string(test.param); });

TEST(KvCache, Int8KeepsTheLargestElementExactly) {
  KvCache cache(kShape, 1, find_kv_type("int8"));
  std::vector<float> vector(kShape.head_dim, 0.01f);
  vector[3] = -3.0f;
  cache.store(1, 2, 0, vector.data(), vector.data());
  const std::vector<float> out = value_at(cache, 1, 2, 0);
  EXPECT_NEAR(out[3], -3.0f, 1e-6f);
  for (uint64_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out[i], vector[i], 3.0f / 254);
}

TEST(KvCache, BytesPerPositionCountKeysValuesAndScales) {
  EXPECT_EQ(KvCache(kShape, 1, find_kv_type("f16")).bytes_per_position(), 2u * 2 * 3 * 10 * 2);
  EXPECT_EQ(KvCache(kShape, 1, find_kv_type("int8")).bytes_per_position(), 2u * 2 * 3 * (10 + 4));
}

TEST(KvCache, AnUnknownTypeIsRefusedWithTheKnownOnes) {
  ErrorCode code{};
  const auto message = error_of([] { find_kv_type("f8"); }, &code);
  ASSERT_TRUE(message);
  EXPECT_EQ(code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(*message, HasSubstr("\"f8\""));
  EXPECT_THAT(*message, HasSubstr("f16, int8"));
}

TEST(KvCache, MoreThanTheMemoryIsRefusedWithTheArithmetic) {
  for (uint64_t capacity : {uint64_t{1} << 62, UINT64_MAX}) {
    ErrorCode code{};
    const auto message = error_of([&] { KvCache(kShape, capacity, find_kv_type("f16")); }, &code);
    ASSERT_TRUE(message);
    EXPECT_EQ(code, ErrorCode::kOutOfMemory);
    EXPECT_THAT(*message, HasSubstr("2 layers x 3 heads"));
  }
}

}  // namespace
}  // namespace upg
