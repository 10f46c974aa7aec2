// inspect, verify and decompress: the figures add up, and what comes back is what was stored.
#include "upg/inspect.h"

#include "codec/codec.h"
#include "model/test_util.h"
#include "upg/compress.h"

namespace upg {
namespace {

using namespace testing_util;
using ::testing::HasSubstr;

class Inspect : public TemporaryFolderTest {
 protected:
  std::string compressed(const std::string& model, const std::string& codec, const std::string& name = "model.upg") {
    CompressOptions options;
    options.codec = codec;
    options.threads = 1;
    options.calibrate = "none";
    compress(model, path(name), options);
    return path(name);
  }
  static std::string refusal(const std::function<void()>& action, ErrorCode* code = nullptr) {
    return error_of(action, code).value_or("accepted");
  }
};

uint64_t elements_of(const TensorReport& t) {
  uint64_t elements = 1;
  for (uint64_t dim : t.shape) elements *= dim;
  return elements;
}

void expect_sums(const ModelReport& report) {
  uint64_t parameters = 0, bytes = 0;
  for (const TensorReport& t : report.tensors) {
    const uint64_t elements = elements_of(t);
    EXPECT_DOUBLE_EQ(t.bits_per_weight, 8.0 * static_cast<double>(t.bytes) / static_cast<double>(elements));
    parameters += elements;
    bytes += t.bytes;
  }
  EXPECT_EQ(report.parameters, parameters);
  EXPECT_EQ(report.weight_bytes, bytes);
  EXPECT_GE(report.file_bytes, bytes);
  EXPECT_DOUBLE_EQ(report.ratio_fp32, 4.0 * static_cast<double>(parameters) / static_cast<double>(bytes));
  EXPECT_DOUBLE_EQ(report.bits_per_weight, 32 / report.ratio_fp32);
}

TEST_F(Inspect, ReportsOfCheckpointsAndFilesAddUp) {
  for (const std::string& name : golden_names()) {
    const ModelReport dense = inspect(golden_model(name));
    expect_sums(dense);
    EXPECT_EQ(dense.format, "checkpoint");
    const ModelReport report = inspect(compressed(golden_model(name), "trellis3"));
    expect_sums(report);
    EXPECT_EQ(report.format, "UPG 3.0");
    EXPECT_EQ(report.architecture, dense.architecture);
    uint64_t parameters = 0;  // of what the model uses: a checkpoint may hold more
    for (const TensorReport& t : dense.tensors)
      if (std::any_of(report.tensors.begin(), report.tensors.end(), [&](const auto& r) { return r.name == t.name; }))
        parameters += elements_of(t);
    EXPECT_EQ(report.parameters, parameters);
    EXPECT_EQ(report.file_bytes, std::filesystem::file_size(path("model.upg")));
    for (const TensorReport& t : report.tensors) {
      EXPECT_EQ(t.relative_error.has_value(), t.shape.size() == 2) << t.name;
      if (t.relative_error) {
        EXPECT_GT(*t.relative_error, 0.02) << t.name;
        EXPECT_LT(*t.relative_error, 0.3) << t.name;
      }
    }
  }
}

TEST_F(Inspect, DecompressedDenseWeightsAreTheOriginalsBitForBit) {
  const std::pair<const char*, const char*> models[] = {
      {"one_kv_head_bf16", "bf16"}, {"tied_f16", "f16"}, {"wide_heads_f32", "f32"}, {"sharded_old_config_bf16", "f32"}};
  for (const auto& [name, codec] : models) {
    decompress(compressed(golden_model(name), codec), path(name));
    const Checkpoint before(golden_model(name)), after(path(name));
    ASSERT_EQ(after.tensors().size(), before.tensors().size());
    for (const TensorView& t : before.tensors()) {
      const TensorView* other = after.find(t.name);
      ASSERT_NE(other, nullptr) << t.name;
      EXPECT_EQ(other->dtype, t.dtype) << t.name;
      EXPECT_EQ(other->shape, t.shape) << t.name;
      EXPECT_TRUE(std::equal(t.data.begin(), t.data.end(), other->data.begin(), other->data.end())) << t.name;
    }
    EXPECT_EQ(nlohmann::json::parse(after.texts().config), nlohmann::json::parse(before.texts().config));
  }
}

TEST_F(Inspect, DecompressedTrellisWeightsRunAsTheFileDoes) {
  const std::string name = "wide_heads_f32";  // float32 holds decoded weights exactly
  decompress(compressed(golden_model(name), "trellis4"), path("dense"));
  const Golden golden(golden_model(name));
  const std::vector<float> of_file = Runner(path("model.upg")).feed_whole(golden.ids);
  EXPECT_LE(largest_difference(Runner(path("dense")).feed_whole(golden.ids), of_file), 1e-4f * largest_of(of_file));
  EXPECT_EQ(inspect(path("dense")).parameters, inspect(path("model.upg")).parameters);
}

TEST_F(Inspect, DecompressingIntoACheckpointOrFromOneIsRefused) {
  compressed(golden_model("tied_f16"), "trellis3");
  decompress(path("model.upg"), path("dense"));
  EXPECT_THAT(refusal([&] { decompress(path("model.upg"), path("dense")); }), HasSubstr("already holds"));
  EXPECT_THAT(refusal([&] { decompress(golden_model("tied_f16"), path("x")); }), HasSubstr("not compressed"));
  EXPECT_THAT(refusal([&] { verify(golden_model("tied_f16")); }), HasSubstr("not a UPG file"));
}

TEST_F(Inspect, CancelledDecompressionLeavesNoFiles) {
  compressed(golden_model("tied_f16"), "trellis3");
  ErrorCode code{};
  EXPECT_THAT(
      refusal([&] { decompress(path("model.upg"), path("dense"), [](auto, auto, auto) { return false; }); }, &code),
      HasSubstr("cancelled"));
  EXPECT_EQ(code, ErrorCode::kCancelled);
  EXPECT_TRUE(std::filesystem::is_empty(path("dense")));
}

TEST_F(Inspect, VerifyFindsAChangedByteAnywhere) {
  compressed(golden_model("one_kv_head_bf16"), "trellis2");
  const std::string whole = read_file(path("model.upg"));
  verify(path("model.upg"));
  uint64_t last = 0;
  verify(path("model.upg"), [&](std::string_view, uint64_t done, uint64_t total) {
    EXPECT_LE(done, total);
    last = done;
    return true;
  });
  EXPECT_GT(last, 0u);
  for (size_t at = 0; at < whole.size(); at += 1 + whole.size() / 300) {
    std::string broken = whole;
    broken[at] = static_cast<char>(broken[at] ^ 0x10);
    write_file(path("broken.upg"), broken);
    EXPECT_THAT(refusal([&] { verify(path("broken.upg")); }), HasSubstr("broken.upg")) << "byte " << at;
  }
}

TEST_F(Inspect, ATruncatedFileIsRefusedAtAnyLength) {
  compressed(golden_model("one_kv_head_bf16"), "trellis2");
  const std::string whole = read_file(path("model.upg"));
  for (size_t n = 0; n < whole.size(); n += n < 100 ? 1 : 1 + whole.size() / 200) {
    write_file(path("short.upg"), whole.substr(0, n));
    for (const auto& use :
         {std::function([&] { inspect(path("short.upg")); }), std::function([&] { verify(path("short.upg")); })})
      EXPECT_THAT(refusal(use), HasSubstr("short.upg")) << n << " bytes";
  }
}

}  // namespace
}  // namespace upg
