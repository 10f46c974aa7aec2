// Compressing with calibration: aims met exactly, less loss, the same bytes whatever the threads and interruptions.
#include <cmath>

#include "compress/journal.h"
#include "model/test_util.h"
#include "text/tokenizer.h"
#include "upg/compress.h"

namespace upg {
namespace {

using namespace testing_util;
using ::testing::HasSubstr;

class CalibratedTest : public TemporaryFolderTest {
 protected:
  void SetUp() override {
    TemporaryFolderTest::SetUp();
    // The first layer of the demo model: it has a tokenizer, and is quick.
    EditableCheckpoint checkpoint(demo_model());
    checkpoint.config["num_hidden_layers"] = 1;
    std::erase_if(checkpoint.tensors, [](const OwnedTensor& t) {
      return t.name.find(".layers.") != std::string::npos && t.name.find(".layers.0.") == std::string::npos;
    });
    model_ = checkpoint.write(path("model"));
    std::filesystem::copy_file(demo_model() + "/tokenizer.json", model_ + "/tokenizer.json");
  }
  static CompressOptions options(unsigned threads = 2) {
    CompressOptions o;
    o.calibration_tokens = 4096;
    o.threads = threads;
    return o;
  }
  CompressReport run(const CompressOptions& o, const std::string& name = "out.upg") {
    return compress(model_, path(name), o);
  }
  std::string model_;
};

TEST_F(CalibratedTest, EveryAimIsMetToATenthOfAPercentAndMoreBytesLoseLess) {
  double before = INFINITY;
  const uint64_t parameters = inspect(model_).parameters;
  for (double ratio : {14.0, 11.4, 10.0, 8.0, 5.0}) {
    CompressOptions o = options();
    o.ratio = ratio;
    const ModelReport report = run(o).model;
    verify(path("out.upg"));
    const double budget = std::floor(4.0 * static_cast<double>(parameters) / ratio);
    EXPECT_LE(static_cast<double>(report.weight_bytes), budget) << ratio;
    // At 5 only the two widest matrices of this small model are left to a trellis: no plane of theirs fits the rest.
    EXPECT_GE(static_cast<double>(report.weight_bytes), (ratio > 5 ? 0.999 : 0.99) * budget) << ratio;
    ASSERT_TRUE(report.measured_loss && report.predicted_loss);
    EXPECT_LT(*report.measured_loss, before) << ratio;
    EXPECT_GT(*report.measured_loss, 0);
    before = *report.measured_loss;
    double sum = 0;
    for (const TensorReport& tensor : report.tensors)
      if (tensor.shape.size() == 2) sum += tensor.predicted_loss.value();
    EXPECT_NEAR(sum, *report.predicted_loss, 1e-9);
  }
}

TEST_F(CalibratedTest, CalibrationLosesLessThanRounding) {
  // Both with the same codec everywhere, on text that neither has seen.
  CompressOptions rounded = options();
  rounded.codec = "trellis2";
  rounded.calibrate = "none";
  run(rounded, "rounded.upg");
  CompressOptions calibrated = options();
  calibrated.codec = "trellis2";
  calibrated.calibration_tokens = 16384;
  run(calibrated, "calibrated.upg");
  const std::vector<int32_t> ids =
      Tokenizer::from_json(read_file(model_ + "/tokenizer.json"), "tokenizer.json")
          ->encode(
              "The river rose in the night, and by the morning the lower fields were under water. The people of "
              "the village had moved their animals to the hill before it was dark.");
  ASSERT_LE(ids.size(), 64u);
  const std::vector<float> original = Runner(model_).feed_whole(ids);
  auto distance = [&](const std::string& name) {
    const std::vector<float> logits = Runner(path(name)).feed_whole(ids);
    double sum = 0;
    for (size_t i = 0; i < logits.size(); ++i) sum += std::pow(double{logits[i]} - double{original[i]}, 2);
    return sum;
  };
  EXPECT_LT(distance("calibrated.upg"), distance("rounded.upg"));
}

TEST_F(CalibratedTest, ThreadsDoNotChangeAByte) {
  run(options(1), "one.upg");
  run(options(3), "three.upg");
  EXPECT_TRUE(read_file(path("one.upg")) == read_file(path("three.upg")));
}

TEST_F(CalibratedTest, StoppedAgainAndAgainItGoesOnAndGivesTheSameBytes) {
  run(options(), "whole.upg");
  int stops = 0;
  for (int patience = 150;; patience *= 2) {
    CompressOptions o = options();
    int calls = 0;
    o.progress = [&](std::string_view, uint64_t done, uint64_t total) {
      EXPECT_LE(done, total);
      return ++calls < patience;
    };
    bool stopped = false;
    try {
      run(o);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCancelled);
      EXPECT_THAT(error.what(), HasSubstr("goes on"));
      stopped = true;
    }
    EXPECT_EQ(std::filesystem::exists(path("out.upg")), !stopped);
    if (!stopped) break;
    ++stops;
    ASSERT_LT(stops, 200);
  }
  EXPECT_GT(stops, 1);
  EXPECT_TRUE(read_file(path("whole.upg")) == read_file(path("out.upg")));
  EXPECT_FALSE(std::filesystem::exists(path("out.upg.partial")));
}

TEST_F(CalibratedTest, WhatWasFinishedIsTakenFromTheJournal) {
  CompressOptions o = options();
  uint64_t reached = 0;
  o.progress = [&](std::string_view stage, uint64_t done, uint64_t total) {
    if (stage != "measuring sensitivity") reached = done;
    return reached < total / 2;
  };
  EXPECT_TRUE(error_of([&] { run(o); }));
  ASSERT_TRUE(std::filesystem::exists(path("out.upg.partial")));
  // Started again, the first matrix is not encoded: it is reported as done at once, without steps in between.
  std::vector<uint64_t> seen;
  o.progress = [&](std::string_view stage, uint64_t done, uint64_t) {
    if (stage == "model.embed_tokens.weight") seen.push_back(done);
    EXPECT_NE(stage, "measuring sensitivity");
    return true;
  };
  run(o);
  EXPECT_EQ(seen.size(), 1u);
}

TEST_F(CalibratedTest, OtherOptionsBeginAnew) {
  CompressOptions o = options();
  uint64_t reached = 0;
  o.progress = [&](std::string_view stage, uint64_t done, uint64_t total) {
    if (stage != "measuring sensitivity") reached = done;
    return reached < total / 2;
  };
  EXPECT_TRUE(error_of([&] { run(o); }));
  CompressOptions other = options();
  other.ratio = 8;
  run(other);
  run(other, "fresh.upg");
  EXPECT_TRUE(read_file(path("out.upg")) == read_file(path("fresh.upg")));
}

TEST_F(CalibratedTest, TextsThatCannotServeAreRefused) {
  CompressOptions o = options();
  ErrorCode code{};
  o.calibrate = path("absent.txt");
  EXPECT_THAT(error_of([&] { run(o); }, &code).value_or(""), HasSubstr("absent.txt"));
  write_file(path("short.txt"), "too little");
  o.calibrate = path("short.txt");
  EXPECT_THAT(error_of([&] { run(o); }, &code).value_or(""), HasSubstr("at least"));
  o = options();
  o.calibration_tokens = 0;
  EXPECT_THAT(error_of([&] { run(o); }, &code).value_or(""), HasSubstr("--calibrate none"));
  o = options();
  EXPECT_THAT(error_of([&] { compress(golden_model("window_bf16"), path("out.upg"), o); }, &code).value_or(""),
              HasSubstr("no tokenizer.json"));
  EXPECT_EQ(code, ErrorCode::kUnsupported);
}

TEST_F(CalibratedTest, DeadColumnsConstantAndZeroWeightsAreCalibratedToo) {
  EditableCheckpoint checkpoint(model_);
  const std::string mlp = "model.layers.0.mlp.";
  OwnedTensor& gate_up = checkpoint.at(mlp + "gate_up_proj.weight");
  for (uint64_t i = 0; i < gate_up.elements() / 4; ++i) gate_up.set(i, 0);  // half of the gates: dead inputs of down
  checkpoint.at("model.layers.0.self_attn.o_proj.weight").fill(0);
  checkpoint.at("model.layers.0.self_attn.qkv_proj.weight").fill(0.01f);
  const std::string odd = checkpoint.write(path("odd"));
  std::filesystem::copy_file(model_ + "/tokenizer.json", odd + "/tokenizer.json");
  const ModelReport report = compress(odd, path("odd.upg"), options()).model;
  verify(path("odd.upg"));
  ASSERT_TRUE(report.measured_loss);
  EXPECT_TRUE(std::isfinite(*report.measured_loss));
  std::vector<int32_t> ids = {5, 6, 7, 8};
  for (float logit : Runner(path("odd.upg")).feed_whole(ids)) EXPECT_TRUE(std::isfinite(logit));
}

}  // namespace
}  // namespace upg
