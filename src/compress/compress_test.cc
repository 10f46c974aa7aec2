// Compressing small checkpoints: aims met, the same bytes whatever the threads, nothing left behind on failure.
#include "upg/compress.h"

#include <sys/stat.h>

#include <cmath>

#include "codec/codec_table.h"
#include "model/test_util.h"

namespace upg {
namespace {

using namespace testing_util;
using ::testing::HasSubstr;

const std::string kMatrix = "model.layers.1.mlp.down_proj.weight";  // [36, 52]

class CompressTest : public TemporaryFolderTest {
 protected:
  static CompressOptions with_codec(std::string codec, unsigned threads = 1) {
    CompressOptions options;
    options.codec = std::move(codec);
    options.threads = threads;
    options.calibrate = "none";
    return options;
  }
  static CompressOptions data_free() {
    CompressOptions options;
    options.calibrate = "none";
    return options;
  }
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(dir_)) names.push_back(entry.path().filename());
    return names;
  }
  // The message of a compression that fails; nothing may be left of it.
  std::string refusal(const std::string& source, const CompressOptions& options, ErrorCode* code = nullptr,
                      const std::string& target = "out.upg") {
    const auto before = files();
    const auto message = error_of([&] { compress(source, path(target), options); }, code);
    EXPECT_EQ(files(), before);
    return message.value_or("accepted");
  }
  std::string edited(const std::function<void(EditableCheckpoint&)>& edit) {
    EditableCheckpoint checkpoint(golden_model("one_kv_head_bf16"));
    edit(checkpoint);
    return checkpoint.write(path("model"));
  }
};

TEST_F(CompressTest, ThreadsDoNotChangeAByte) {
  for (const char* codec : {"trellis2", "trellis3", "trellis4", "mdcsr", "mdcsr_manifold", "int8", "bf16"}) {
    compress(golden_model("window_bf16"), path("one.upg"), with_codec(codec, 1));
    compress(golden_model("window_bf16"), path("three.upg"), with_codec(codec, 3));
    EXPECT_TRUE(read_file(path("one.upg")) == read_file(path("three.upg"))) << codec;
  }
}

TEST_F(CompressTest, EveryCodecRunsAndIsVerified) {
  const Golden golden(golden_model("partial_rotary_f32"));
  for (const Codec* codec : codecs()) {
    CompressOptions options = with_codec(std::string(codec->id));
    options.density = 1;  // sparse codecs keep all, and are close then
    const CompressReport report = compress(golden_model("partial_rotary_f32"), path("out.upg"), options);
    verify(path("out.upg"));
    for (const TensorReport& t : report.model.tensors)
      EXPECT_EQ(t.codec, t.shape.size() == 2 ? std::string(codec->id) : "f32");
    EXPECT_EQ(Runner(path("out.upg")).feed_whole(golden.ids).size(), golden.logits.size()) << codec->id;
  }
}

TEST_F(CompressTest, DenseCodecsKeepTheLogits) {
  const Golden golden(golden_model("sharded_old_config_bf16"));
  for (const char* codec : {"bf16", "f32"}) {
    compress(golden_model("sharded_old_config_bf16"), path("out.upg"), with_codec(codec));
    EXPECT_EQ(Runner(path("out.upg")).feed_whole(golden.ids),
              Runner(golden_model("sharded_old_config_bf16")).feed_whole(golden.ids))
        << codec;
  }
}

TEST_F(CompressTest, MoreBitsAreCloserToTheOriginal) {
  const Golden golden(golden_model("window_bf16"));
  float before = INFINITY;
  for (const char* codec : {"trellis2", "trellis3", "trellis4"}) {
    compress(golden_model("window_bf16"), path("out.upg"), with_codec(codec));
    double square = 0;
    const std::vector<float> logits = Runner(path("out.upg")).feed_whole(golden.ids);
    for (size_t i = 0; i < logits.size(); ++i) square += std::pow(logits[i] - golden.logits[i], 2);
    EXPECT_LT(square, before) << codec;
    before = static_cast<float>(square);
  }
}

TEST_F(CompressTest, SparseFilesAreOfVersionTwoAndKeepTheDensity) {
  CompressOptions options = with_codec("mdcsr");
  options.density = 0.2;
  const ModelReport sparse = compress(golden_model("window_bf16"), path("a.upg"), options).model;
  EXPECT_EQ(sparse.format, "UPG 2.0");
  options.density = 0.5;
  EXPECT_GT(compress(golden_model("window_bf16"), path("b.upg"), options).model.weight_bytes, sparse.weight_bytes);
  for (double density : {0.0, -1.0, 1.5, std::nan("")}) {
    options.density = density;
    EXPECT_THAT(refusal(golden_model("window_bf16"), options), HasSubstr("density"));
  }
}

TEST_F(CompressTest, AimsAreMetAndNeverMissed) {
  const std::string model = golden_model("window_bf16");
  const uint64_t parameters = inspect(model).parameters;
  for (double ratio : {3.0, 4.0, 5.0}) {
    CompressOptions options = data_free();
    options.ratio = ratio;
    const ModelReport report = compress(model, path("out.upg"), options).model;
    EXPECT_GE(report.ratio_fp32, ratio);
    CompressOptions bytes = data_free();
    bytes.bytes = report.weight_bytes;
    EXPECT_EQ(compress(model, path("out.upg"), bytes).model.weight_bytes, report.weight_bytes);
    CompressOptions bits = data_free();
    bits.bits = 32 / ratio;
    const ModelReport by_bits = compress(model, path("out.upg"), bits).model;
    EXPECT_LE(by_bits.bits_per_weight, 32 / ratio);
    EXPECT_LE(by_bits.weight_bytes, 4 * parameters);
  }
}

TEST_F(CompressTest, AnAimOutOfReachIsRefusedWithTheLargestRatioWhichWorks) {
  CompressOptions options = data_free();
  options.ratio = 100;
  ErrorCode code{};
  const std::string message = refusal(golden_model("window_bf16"), options, &code);
  EXPECT_EQ(code, ErrorCode::kInvalidArgument);
  const size_t at = message.find("--ratio ");
  ASSERT_NE(at, std::string::npos) << message;
  options.ratio = std::stod(message.substr(at + 8));
  EXPECT_GE(compress(golden_model("window_bf16"), path("out.upg"), options).model.ratio_fp32, *options.ratio);
  options.ratio = *options.ratio + 0.02;
  EXPECT_NE(refusal(golden_model("window_bf16"), options), "accepted");
}

TEST_F(CompressTest, WrongOptionsAreRefusedByName) {
  const std::string model = golden_model("window_bf16");
  CompressOptions two = data_free();
  two.ratio = 4;
  two.bits = 8;
  EXPECT_THAT(refusal(model, two), HasSubstr("one of ratio, bytes and bits"));
  for (double wrong : {0.0, -3.0, std::nan(""), static_cast<double>(INFINITY)}) {
    CompressOptions ratio = data_free(), bits = data_free();
    ratio.ratio = wrong;
    bits.bits = wrong;
    EXPECT_THAT(refusal(model, ratio), HasSubstr("ratio is"));
    EXPECT_THAT(refusal(model, bits), HasSubstr("bits is"));
  }
  CompressOptions none = data_free();
  none.bytes = 0;
  EXPECT_THAT(refusal(model, none), HasSubstr("largest ratio"));
  EXPECT_THAT(refusal(model, with_codec("gzip")), HasSubstr("\"gzip\""));
}

TEST_F(CompressTest, WeightsThatAreNotFiniteAreRefusedWithTheirPlace) {
  for (float value : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    const std::string model = edited([&](EditableCheckpoint& c) { c.at(kMatrix).set(17 * 52 + 43, value); });
    for (const Codec* codec : codecs())
      for (unsigned threads : {1u, 3u}) {
        ErrorCode code{};
        const std::string message = refusal(model, with_codec(std::string(codec->id), threads), &code);
        EXPECT_EQ(code, ErrorCode::kInvalidFile);
        EXPECT_THAT(message, HasSubstr(kMatrix));
        EXPECT_THAT(message, HasSubstr("row 17, column 43")) << codec->id;
      }
    std::filesystem::remove_all(model);
  }
}

TEST_F(CompressTest, ZeroConstantTinyAndLargeWeightsAreKept) {
  for (float value : {0.0f, 1.0f, -0.25f, 1e-38f, 1e15f}) {
    const std::string model = edited([&](EditableCheckpoint& c) { c.at(kMatrix).fill(value); });
    for (const Codec* codec : codecs()) {
      if (codec->id == "f16" && std::abs(value) > 65504) continue;  // does not fit
      const CompressReport report = compress(model, path("out.upg"), with_codec(std::string(codec->id)));
      verify(path("out.upg"));
      for (const TensorReport& t : report.model.tensors) {
        if (t.name != kMatrix) continue;
        EXPECT_TRUE(std::isfinite(*t.relative_error)) << codec->id << " " << value;
        if (value == 0) {
          EXPECT_EQ(*t.relative_error, 0.0) << codec->id;
        }
      }
    }
    std::filesystem::remove_all(model);
  }
}

TEST_F(CompressTest, WeightsTooLargeForACodecAreRefusedWithTheirPlace) {
  const std::string model = edited([&](EditableCheckpoint& c) { c.at(kMatrix).fill(1e30f); });
  for (const char* codec : {"trellis2", "trellis3", "trellis4"})
    EXPECT_THAT(refusal(model, with_codec(codec)), ::testing::AllOf(HasSubstr(kMatrix), HasSubstr("row 0")));
  EXPECT_EQ(error_of([&] { compress(model, path("out.upg"), with_codec("bf16")); }), std::nullopt);
}

TEST_F(CompressTest, WeightsThatCannotBeStoredAreRefusedBeforeAnythingIsWritten) {
  const std::string model = edited([](EditableCheckpoint& c) {
    OwnedTensor& t = c.at("model.norm.weight");
    t.dtype = DType::kF64;
    t.data.assign(36 * 8, std::byte{0});
  });
  EXPECT_THAT(refusal(model, with_codec("trellis3")), HasSubstr("model.norm.weight is F64"));
}

TEST_F(CompressTest, CancellingLeavesNothingBehind) {
  write_file(path("out.upg"), "what was there");
  for (int calls_before_stop : {0, 1, 5, 20, 29}) {
    int calls = 0;
    CompressOptions options = with_codec("trellis2");
    options.progress = [&](std::string_view, uint64_t done, uint64_t total) {
      EXPECT_LE(done, total);
      return calls++ < calls_before_stop;
    };
    ErrorCode code{};
    EXPECT_THAT(refusal(golden_model("one_kv_head_bf16"), options, &code), HasSubstr("cancelled"))
        << calls_before_stop << " of " << calls;
    EXPECT_EQ(code, ErrorCode::kCancelled);
    EXPECT_TRUE(read_file(path("out.upg")) == "what was there");
  }
}

TEST_F(CompressTest, ATargetThatCannotBeWrittenIsRefusedBeforeTheWork) {
  CompressOptions options = with_codec("trellis2");
  int calls = 0;
  options.progress = [&](std::string_view, uint64_t, uint64_t) {
    ++calls;
    return true;
  };
  ErrorCode code{};
  EXPECT_THAT(refusal(golden_model("tied_f16"), options, &code, "absent/out.upg"), HasSubstr("absent"));
  EXPECT_EQ(code, ErrorCode::kIo);
  EXPECT_EQ(calls, 0);
  std::filesystem::create_directory(path("folder"));
  EXPECT_THAT(refusal(golden_model("tied_f16"), options, &code, "folder"), HasSubstr("folder"));
  if (::geteuid() != 0) {  // to root every folder is writable
    ::chmod(path("folder").c_str(), 0555);
    EXPECT_THAT(refusal(golden_model("tied_f16"), options, &code, "folder/out.upg"), HasSubstr("folder"));
  }
}

TEST_F(CompressTest, AFileThatIsCompressedAlreadyIsRefused) {
  compress(golden_model("tied_f16"), path("first.upg"), with_codec("trellis3"));
  ErrorCode code{};
  EXPECT_THAT(refusal(path("first.upg"), with_codec("trellis3"), &code), HasSubstr("already compressed"));
  EXPECT_EQ(code, ErrorCode::kInvalidArgument);
}

TEST_F(CompressTest, ModelsThatCannotRunAreRefused) {
  EXPECT_THAT(
      refusal(edited([](EditableCheckpoint& c) { c.config["architectures"] = {"Other"}; }), with_codec("trellis3")),
      HasSubstr("Other"));
  EXPECT_THAT(refusal(path("absent"), with_codec("trellis3")), HasSubstr("absent"));
}

}  // namespace
}  // namespace upg
