// The CPU's part of a model that a GPU goes on with, and how many layers are left to the GPU.
#include "model/layer_split.h"

#include "model/test_util.h"

namespace upg {
namespace {

using namespace testing_util;

// First layers over a cache of their own, the others over another one: as a GPU would, but here.
class SplitModel {
 public:
  SplitModel(const std::string& path, uint64_t first_layers)
      : weights_(path),
        model_(load_model(weights_)),
        begin_(first_layers),
        first_(*model_, context_, first_layers, kCapacity, kv(), Activations::kQuantized),
        rest_(model_->shape().kv, kCapacity, kv()) {}

  uint64_t vocab() const { return model_->shape().vocab_size; }

  std::vector<float> feed(std::span<const int32_t> ids) {
    const float* of_first = first_.forward(ids);
    std::vector<float> x(of_first, of_first + ids.size() * model_->shape().hidden_size);
    const Batch batch(rest_, ids.size());
    for (uint64_t i = begin_; i < model_->shape().layers; ++i)
      model_->layer(context_, i, batch, Activations::kQuantized, x.data());
    rest_.set_length(rest_.length() + ids.size());
    std::vector<float> logits(ids.size() * vocab());
    model_->head(context_, ids.size(), Activations::kQuantized, x.data(), logits.data());
    return logits;
  }

  void set_length(uint64_t length) {
    ASSERT_EQ(first_.set_length(length), length);
    ASSERT_EQ(rest_.set_length(length), length);
  }

  static constexpr uint64_t kCapacity = 64;
  static const KvType& kv() { return find_kv_type("f16"); }

 private:
  Weights weights_;
  OpContext context_{2};
  std::unique_ptr<Model> model_;
  uint64_t begin_;
  FirstLayers first_;
  KvCache rest_;
};

class LayerSplit : public ::testing::TestWithParam<std::string> {};

TEST_P(LayerSplit, FirstLayersAndThenTheOthersGiveTheBitsOfTheWholeModel) {
  const std::string path = golden_model(GetParam());
  const std::vector<int32_t> ids = Golden(path).ids;
  ASSERT_GT(ids.size(), 4u);
  const auto rest = std::span(ids).subspan(4);
  Runner whole(path, 2, "f16", SplitModel::kCapacity);
  const std::vector<float> prompt = whole.feed(std::span(ids).first(4), Activations::kQuantized);
  const std::vector<float> more = whole.feed(rest, Activations::kQuantized);
  Weights weights(path);
  const uint64_t layers = load_model(weights)->shape().layers;
  for (uint64_t first_layers : std::set<uint64_t>{1, layers - 1}) {
    SplitModel split(path, first_layers);
    EXPECT_EQ(split.feed(std::span(ids).first(4)), prompt) << first_layers;
    EXPECT_EQ(split.feed(rest), more) << first_layers;
    split.set_length(4);
    EXPECT_EQ(split.feed(rest), more) << first_layers << ", after going back";
  }
}

INSTANTIATE_TEST_SUITE_P(Models, LayerSplit, ::testing::ValuesIn(golden_names()),
                         [](const auto& test) { return test.param; });

TEST(LayerSplit, FirstLayersKeepAndReadTheirOwnKeysAndValuesOnly) {
  Weights weights(demo_model());
  OpContext context(1);
  const auto model = load_model(weights);
  const uint64_t layers = model->shape().layers;
  const KvType& kv = find_kv_type("int8");
  const KvCache whole(model->shape().kv, 100, kv);
  FirstLayers first(*model, context, layers / 3, 100, kv, Activations::kQuantized);
  EXPECT_EQ(first.bytes_read_at(70) * 3, whole.bytes_read_at(70));
  first.fill(70);
  EXPECT_EQ(first.set_length(60), 60u);
}

TEST(LayerSplit, TheLastLayersGoToTheGpuAndAllWhereNoneAreLeft) {
  EXPECT_EQ(first_gpu_layer({}, 40), 0u);
  EXPECT_EQ(first_gpu_layer(31, 40), 9u);
  EXPECT_EQ(first_gpu_layer(1, 40), 39u);
  EXPECT_EQ(first_gpu_layer(40, 40), 0u);
  EXPECT_EQ(first_gpu_layer(999, 40), 0u);
}

TEST(LayerSplit, AsManyLayersFitAsTheirBytesFromTheLastOnSay) {
  const std::vector<uint64_t> bytes = {10, 20, 30};
  const auto fit = [&](uint64_t free) { return last_layers_that_fit(bytes, 5, free); };
  EXPECT_EQ(fit(0), 0u);
  EXPECT_EQ(fit(5), 0u);
  EXPECT_EQ(fit(34), 0u) << "the last layer is a byte too large, though the first would fit";
  EXPECT_EQ(fit(35), 1u);
  EXPECT_EQ(fit(54), 1u);
  EXPECT_EQ(fit(55), 2u);
  EXPECT_EQ(fit(64), 2u);
  EXPECT_EQ(fit(65), 3u);
  EXPECT_EQ(fit(UINT64_MAX), 3u);
  const std::vector<uint64_t> huge(4, UINT64_MAX / 2);
  EXPECT_EQ(last_layers_that_fit(huge, 1, UINT64_MAX), 2u) << "sums must not wrap";
}

}  // namespace
}  // namespace upg
