// The KV cache: what is stored comes back through attention, types by name, memory by arithmetic.
#include "model/kv_cache.h"

#include "format/test_util.h"

namespace upg {
namespace {

using ::testing::HasSubstr;
using testing_util::error_of;

constexpr uint64_t kLayers = 2, kHeads = 3, kHeadDim = 10;
const KvShape kShape = KvShape::uniform(kLayers, kHeads, kHeadDim);

// Attention over the single position `position` returns its value vector whatever the query.
std::vector<float> value_at(const KvCache& cache, uint64_t layer, uint64_t head, uint64_t position) {
  std::vector<float> query(kHeadDim, 0.5f), out(kHeadDim), scores(1);
  kernels::AttendArgs args{};
  args.q = query.data();
  args.out = out.data();
  args.scores = scores.data();
  args.group = 1;
  args.q_stride = args.out_stride = kHeadDim;
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
  for (uint64_t l = 0; l < kLayers; ++l) cache.make_room(l, kCapacity);
  std::vector<float> vector(kHeadDim);
  for (uint64_t l = 0; l < kLayers; ++l)
    for (uint64_t h = 0; h < kHeads; ++h)
      for (uint64_t p = 0; p < kCapacity; ++p) {
        for (uint64_t i = 0; i < vector.size(); ++i) vector[i] = element(l, h, p, i);
        cache.store(l, h, p, vector.data(), vector.data());
      }
  for (uint64_t l = 0; l < kLayers; ++l)
    for (uint64_t h = 0; h < kHeads; ++h)
      for (uint64_t p = 0; p < kCapacity; ++p) {
        const std::vector<float> out = value_at(cache, l, h, p);
        for (uint64_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out[i], element(l, h, p, i), 0.5f);
      }
}

TEST_P(KvCacheTypes, TinyAndZeroVectorsStayFinite) {
  KvCache cache(kShape, 1, find_kv_type(GetParam()));
  for (float x : {0.0f, 1e-44f, -1e-38f, 1e-30f}) {
    const std::vector<float> vector(kHeadDim, x);
    cache.make_room(0, 1);
    cache.store(0, 0, 0, vector.data(), vector.data());
    for (float out : value_at(cache, 0, 0, 0)) EXPECT_NEAR(out, 0, 1e-7);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, KvCacheTypes, ::testing::Values("f16", "int8"),
                         [](const auto& test) { return std::string(test.param); });

TEST(KvCache, Int8KeepsTheLargestElementExactly) {
  KvCache cache(kShape, 1, find_kv_type("int8"));
  std::vector<float> vector(kHeadDim, 0.01f);
  vector[3] = -3.0f;
  cache.make_room(1, 1);
  cache.store(1, 2, 0, vector.data(), vector.data());
  const std::vector<float> out = value_at(cache, 1, 2, 0);
  EXPECT_NEAR(out[3], -3.0f, 1e-6f);
  for (uint64_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out[i], vector[i], 3.0f / 254);
}

TEST(KvCache, BytesReadCountKeysValuesAndScales) {
  EXPECT_EQ(KvCache(kShape, 1, find_kv_type("f16")).bytes_read_at(0), 2u * 2 * 3 * 10 * 2);
  EXPECT_EQ(KvCache(kShape, 9, find_kv_type("int8")).bytes_read_at(4), 5u * 2 * 2 * 3 * (10 + 4));
}

// A layer that sees all, and one that sees four positions.
KvShape windowed() { return {{{1, 1, 1, 0, false}, {2, 1, 1, 4, false}}}; }

float value_of(const KvCache& cache, uint64_t layer, uint64_t position) {
  float query = 1, out = 0, score;
  kernels::AttendArgs args{};
  args.q = &query;
  args.out = &out;
  args.scores = &score;
  args.group = 1;
  args.scale = 1;
  cache.attend(layer, layer, position, position + 1, args);
  return out;
}

TEST(KvCache, ALayerWithAWindowKeepsLittleMoreThanItsWindow) {
  KvCache cache(windowed(), 100000, find_kv_type("f32"));
  uint64_t position = 0;
  for (uint64_t n : {3u, 1u, 600u, 511u, 2000u, 1u, 1u}) {  // more than it made room for at first
    for (uint64_t layer : {0u, 1u}) {
      cache.make_room(layer, n);
      for (uint64_t head = 0; head <= layer; ++head)
        for (uint64_t i = 0; i < n; ++i) {
          const auto x = static_cast<float>(position + i);
          cache.store(layer, head, position + i, &x, &x);
        }
    }
    position += n;
    EXPECT_EQ(cache.set_length(position), position);
    for (uint64_t layer : {0u, 1u})
      for (uint64_t p = cache.first_seen(layer, position); p < position; ++p)
        ASSERT_EQ(value_of(cache, layer, p), static_cast<float>(p)) << layer;
  }
  EXPECT_LT(cache.bytes_held(), 50u * 64 * 8 + 2 * 700 * 8);
  EXPECT_EQ(cache.bytes_read_at(50), 51u * 8 + 2 * 4 * 8);
}

// Puts `n` positions behind those there are, `x` and on.
void extend(KvCache& cache, uint64_t n, float x) {
  for (uint64_t layer : {0u, 1u}) {
    cache.make_room(layer, n);
    for (uint64_t i = 0; i < n; ++i)
      for (uint64_t head = 0; head <= layer; ++head) {
        const float value = x + static_cast<float>(i);
        cache.store(layer, head, cache.length() + i, &value, &value);
      }
  }
  cache.set_length(cache.length() + n);
}

TEST(KvCache, CachesThatBeginAlikeShareBlocksUntilOneWrites) {
  const auto pool = std::make_shared<KvPool>();
  const KvShape shape{{{1, 1, 1, 0, false}, {2, 1, 1, 0, false}}};
  for (const char* type : {"f32", "int8"}) {
    KvCache first(shape, 1000, find_kv_type(type), pool), second(shape, 1000, find_kv_type(type), pool);
    extend(first, 100, 1);
    EXPECT_EQ(pool->blocks_held(), 4u) << "two of 64 positions in each layer";
    ASSERT_TRUE(second.copy_from(first, 70));
    EXPECT_EQ(second.length(), 70u);
    EXPECT_EQ(pool->blocks_held(), 4u) << "nothing is copied";
    extend(second, 30, 500);
    EXPECT_EQ(pool->blocks_held(), 6u) << "the block that was written to, in each layer";
    extend(first, 10, 900);
    EXPECT_EQ(pool->blocks_held(), 6u) << "which is the other's alone since";
    for (uint64_t layer : {0u, 1u}) {
      const auto near = [&](const KvCache& cache, uint64_t position, float x) {
        EXPECT_NEAR(value_of(cache, layer, position), x, 0.01f * x) << type << " " << layer << " " << position;
      };
      for (uint64_t p = 0; p < 70; ++p) near(second, p, 1 + static_cast<float>(p));
      for (uint64_t p = 70; p < 100; ++p) near(second, p, 430 + static_cast<float>(p));
      for (uint64_t p = 0; p < 100; ++p) near(first, p, 1 + static_cast<float>(p));
      near(first, 100, 900);
    }
    std::set<const void*> blocks;
    first.list_blocks(blocks);
    second.list_blocks(blocks);
    EXPECT_EQ(blocks.size(), pool->blocks_held());
    EXPECT_EQ(first.set_length(64), 64u);
    EXPECT_EQ(pool->blocks_held(), 4u) << "what is forgotten goes back";
    second.set_length(0);
    EXPECT_EQ(pool->blocks_held(), 2u);
  }
  EXPECT_EQ(pool->blocks_held(), 0u);
}

TEST(KvCache, AWindowThatMovesOnLeavesSharedBlocksToOthers) {
  KvCache first(windowed(), 4096, find_kv_type("f32"));
  extend(first, 600, 0);
  KvCache second(windowed(), 4096, find_kv_type("f32"));
  ASSERT_TRUE(second.copy_from(first, 590));
  for (int i = 0; i < 30; ++i) extend(first, 100, static_cast<float>(600 + 100 * i));
  EXPECT_EQ(value_of(second, 1, 500), 500);
  EXPECT_EQ(value_of(first, 1, 3590), 3590);
  KvCache third(windowed(), 4096, find_kv_type("f32"));
  EXPECT_FALSE(third.copy_from(first, 590)) << "its window has gone";
  EXPECT_EQ(third.length(), 0u);
}

TEST(KvCache, GoingBackPastWhatAWindowKeptForgetsAll) {
  KvCache cache(windowed(), 4096, find_kv_type("f16"));
  std::vector<float> zeros(1);
  cache.fill(100, zeros.data(), zeros.data());
  EXPECT_EQ(cache.set_length(50), 50u) << "all of it still lies there";
  cache.fill(2000, zeros.data(), zeros.data());
  EXPECT_EQ(cache.set_length(2000), 2000u);
  EXPECT_EQ(cache.set_length(1000), 0u);
  cache.make_room(1, 8);
  EXPECT_EQ(cache.set_length(8), 8u);
}

TEST(KvCache, ValuesMayBeAPartOfKeys) {
  for (const char* type : {"f32", "f16", "int8"}) {
    KvCache cache({{{1, 3, 2, 0, true}}}, 4, find_kv_type(type));
    const float key[] = {1, -2, 4}, query[] = {0, 0, 0};
    cache.make_room(0, 1);
    cache.store(0, 0, 0, key, nullptr);
    float out[3] = {9, 9, 9}, score;
    kernels::AttendArgs args{};
    args.q = query;
    args.out = out;
    args.scores = &score;
    args.group = 1;
    cache.attend(0, 0, 0, 1, args);
    EXPECT_NEAR(out[0], 1, 0.02);
    EXPECT_NEAR(out[1], -2, 0.02);
    EXPECT_EQ(out[2], 9);
  }
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
    EXPECT_THAT(*message, HasSubstr("3 heads x "));
  }
}

}  // namespace
}  // namespace upg
