// Files that NumPy, SciPy, torch and Python's pickle wrote (scripts/make_legacy_models.py) against the 2.0 file of the
// same weights; and pickles that are no model, each refused by what is wrong with it.
#include "upg/convert.h"

#include <filesystem>
#include <fstream>

#include "base/mapped_file.h"
#include "codec/codec_table.h"
#include "format/test_util.h"
#include "model/weights.h"

namespace upg {
namespace {

using ::testing::HasSubstr;
using testing_util::error_of;

const std::string kFolder = UPG_SOURCE_DIR "/tests/data/legacy/";
const std::string kModel = kFolder + "model.upg";
const std::string kCheckpoint = UPG_SOURCE_DIR "/tests/data/models/one_kv_head_bf16";

std::vector<std::string> files_of_1_0() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder))
    if (entry.path().extension() == ".upg1") names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

// Every weight of a file as float32.
std::map<std::string, std::vector<float>> decoded(const std::string& path) {
  Weights weights(path);
  std::map<std::string, std::vector<float>> result;
  for (const WeightInfo& info : weights.list()) {
    if (info.shape.size() == 1) {
      result[info.name] = weights.vector(info.name, info.shape[0]);
      continue;
    }
    const Matrix matrix = weights.matrix(info.name, info.shape.at(0), info.shape.at(1));
    std::vector<float>& all = result[info.name];
    all.resize(matrix.rows * matrix.cols);
    for (uint64_t row = 0; row < matrix.rows; ++row)
      matrix.codec->decode_row(matrix, row, all.data() + row * matrix.cols);
  }
  return result;
}

// Bit by bit: -0 is not 0.
void expect_same_weights(const std::string& a, const std::string& b) {
  const auto left = decoded(a), right = decoded(b);
  ASSERT_EQ(left.size(), right.size());
  for (const auto& [name, values] : left) {
    ASSERT_TRUE(right.contains(name)) << name;
    ASSERT_EQ(values.size(), right.at(name).size()) << name;
    EXPECT_EQ(std::memcmp(values.data(), right.at(name).data(), values.size() * sizeof(float)), 0) << name;
  }
}

class Convert : public testing_util::TemporaryFolderTest {
 protected:
  std::string write(const std::string& bytes) {
    const std::string name = path("old.upg");
    std::ofstream(name, std::ios::binary) << bytes;
    return name;
  }
  /// The message of the refusal; nothing of the target may be there.
  std::string refused(const std::string& source, const ConvertOptions& options = {}, ErrorCode* code = nullptr) {
    const auto message = error_of([&] { convert(source, path("new.upg"), options); }, code);
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir_), {}),
              std::filesystem::exists(path("old.upg")) ? 1 : 0);
    return message.value_or("nothing was refused");
  }
};

TEST_F(Convert, EveryFormOf10HasTheWeightsOfIts20File) {
  const auto names = files_of_1_0();
  ASSERT_GE(names.size(), 13u);
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    const ConvertReport report = convert(kFolder + name, path("new.upg"));
    EXPECT_EQ(report.from, "1.0");
    EXPECT_EQ(report.model.format, "UPG 2.0");
    EXPECT_EQ(report.notes.size(), 0u);
    expect_same_weights(kModel, path("new.upg"));
    verify(path("new.upg"));
  }
}

TEST_F(Convert, PartsOfASparseMatrixAreThoseThatCompressWrote) {
  convert(kFolder + "protocol4_numpy2.upg1", path("new.upg"));
  const UpgFile old_file = UpgFile::open(kModel), new_file = UpgFile::open(path("new.upg"));
  size_t sparse = 0;
  for (const UpgEntry& entry : old_file.entries()) {
    const UpgEntry* converted = new_file.find(entry.name);
    ASSERT_NE(converted, nullptr);
    if (entry.parts.size() == 1) continue;
    ++sparse;
    EXPECT_EQ(converted->codec, "mdcsr_manifold");
    for (const TensorView& part : entry.parts) {
      const auto same = std::find_if(converted->parts.begin(), converted->parts.end(),
                                     [&](const TensorView& other) { return other.name == part.name; });
      ASSERT_NE(same, converted->parts.end());
      EXPECT_TRUE(std::equal(part.data.begin(), part.data.end(), same->data.begin(), same->data.end())) << part.name;
    }
  }
  EXPECT_GT(sparse, 4u);
}

TEST_F(Convert, OneVersionUpIsTheDefaultAndEveryVersionCanBeAskedFor) {
  EXPECT_EQ(convert(kModel, path("new.upg")).model.format, "UPG 3.0");
  expect_same_weights(kModel, path("new.upg"));
  EXPECT_EQ(convert(kFolder + "zip_numpy2.upg1", path("new.upg"), {.to = "3.0"}).model.format, "UPG 3.0");
  expect_same_weights(kModel, path("new.upg"));
  EXPECT_THAT(*error_of([&] { convert(path("new.upg"), path("x.upg")); }), HasSubstr("is UPG 3.0, the newest version"));
  EXPECT_THAT(*error_of([&] { convert(path("new.upg"), path("x.upg"), {.to = "2.0"}); }),
              HasSubstr("is UPG 3.0; it cannot be converted to 2.0"));
  EXPECT_THAT(*error_of([&] { convert(kModel, path("x.upg"), {.to = "2.0"}); }),
              HasSubstr("cannot be converted to 2.0"));
  EXPECT_THAT(*error_of([&] { convert(kModel, path("x.upg"), {.to = "4.0"}); }), HasSubstr("version \"4.0\""));
}

TEST_F(Convert, AFileMayBeConvertedInItsPlace) {
  std::filesystem::copy_file(kModel, path("new.upg"));
  convert(path("new.upg"), path("new.upg"));
  expect_same_weights(kModel, path("new.upg"));
}

TEST_F(Convert, WhatTheFileLacksComesFromTheCheckpoint) {
  // {"version": 1.0, "model": "a name", "layers": {"model.norm.weight": array}}: a vector alone.
  const auto all = decoded(kCheckpoint);
  const std::vector<float>& norm = all.at("model.norm.weight");
  std::string data(reinterpret_cast<const char*>(norm.data()), norm.size() * sizeof(float));
  const uint32_t size = static_cast<uint32_t>(data.size());
  const std::string pickle =
      "}(X\x07" + std::string(3, '\0') + "versionG\x3f\xf0" + std::string(6, '\0') + "X\x05" + std::string(3, '\0') +
      "modelU\x06" + "a nameX\x06" + std::string(3, '\0') + "layers}X\x11" + std::string(3, '\0') +
      "model.norm.weightcnumpy.core.numeric\n_frombuffer\n(B" + std::string(reinterpret_cast<const char*>(&size), 4) +
      data + "cnumpy\ndtype\nU\x02" + "f4\x85RK" + static_cast<char>(norm.size()) + "\x85U\x01" + "CtRsu.";
  const std::string source = write(pickle);
  EXPECT_THAT(refused(source), HasSubstr("does not hold its model's configuration"));
  const ConvertReport report = convert(source, path("new.upg"), {.checkpoint = kCheckpoint});
  EXPECT_EQ(report.notes.size(), all.size() - 1);
  EXPECT_EQ(report.notes.at(0).what, "taken from the checkpoint");
  expect_same_weights(kCheckpoint, path("new.upg"));
}

TEST_F(Convert, AModelThatCouldNotRunIsNotWritten) {
  std::string bytes = read_file(kFolder + "protocol4_numpy2.upg1");
  const std::string name = "model.norm.weight";
  bytes.replace(bytes.find(name), name.size(), "model.nerm.weight");
  EXPECT_THAT(refused(write(bytes)), HasSubstr("the model in it could not be run"));
  EXPECT_THAT(refused(path("old.upg"), {.checkpoint = kCheckpoint}),
              HasSubstr("model.nerm.weight is not in the checkpoint"));
}

TEST_F(Convert, CancellingLeavesNothing) {
  int calls = 0;
  ErrorCode code = ErrorCode::kIo;
  refused(kModel, {.progress = [&](std::string_view, uint64_t, uint64_t) { return ++calls < 5; }}, &code);
  EXPECT_EQ(code, ErrorCode::kCancelled);
}

TEST_F(Convert, WhatIsNoModelIsRefused) {
  struct Case {
    std::string bytes, says;
  };
  for (const auto& [bytes, says] :
       {Case{"", "is empty"}, Case{"K\x01.", "holds an int, a UPG 1.0 file is a dict"},
        Case{"}.", "\"version\" is missing"},
        Case{"(S'version'\nS'1.5'\nd.", "\"version\" is 1.5; of pickles, UPG 1.0 is read"},
        Case{"(S'version'\nNd.", "\"version\" is None"}, Case{"(S'version'\nI1\nd.", "\"layers\" is missing"},
        Case{"(S'version'\nI1\nS'layers'\n]d.", "\"layers\" is not a dict"},
        Case{"(S'version'\nI1\nS'layers'\n}d.", "\"layers\" is empty"},
        Case{"(S'version'\nI1\nS'layers'\n(I1\nNdd.", "has the key \"an int\", which is no weight's name"},
        Case{"(S'version'\nI1\nS'layers'\n(S'../x'\nNdd.", "has the key \"../x\", which is no weight's name"},
        Case{"(S'version'\nI1\nS'model'\n(S'architectures'\n]dS'layers'\n(S'a'\nNdd.", "architectures"},
        Case{"(S'version'\nI1\nS'version'\nI1\nd.", "has the key \"version\" twice"},
        Case{"}.}.", "2 bytes follow the pickle, which ends at byte 2"},
        Case{"(S'version'\nI1\nS'layers'\ncos\nsystem\n(S'id'\ntRd.", "refused: os.system at byte 25"}})
    EXPECT_THAT(refused(write(bytes)), HasSubstr(says));
}

TEST_F(Convert, AConfigurationThatContainsItselfIsRefused) {
  const std::string config = "(S'architectures'\nS'x'\ndq\x01S'me'\nh\x01s";
  EXPECT_THAT(refused(write("(S'version'\nI1\nS'model'\n" + config + "S'layers'\n(S'a'\nNdd.")),
              HasSubstr("more than 64 levels"));
}

}  // namespace
}  // namespace upg
