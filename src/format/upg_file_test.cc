// UPG files: round trip, plans that are refused, and every way of damaging a small file.
#include "format/upg_file.h"

#include "base/atomic_file.h"
#include "base/mapped_file.h"
#include "format/json.h"
#include "format/test_util.h"
#include "format/upg_writer.h"

namespace upg {
namespace {

using ::testing::HasSubstr;
using testing_util::as_bytes;
using testing_util::error_of;

UpgPlan small_plan() {
  UpgPlan plan;
  plan.architecture = "TestForCausalLM";
  plan.producer = "upg test";
  plan.texts = {R"({"hidden_size": 4})", R"({"eos_token_id": 1})", R"({"model": {}})", R"({"a": "b"})", "{{ x }}\n"};
  plan.entries = {
      {"layer.weight", "trellis3", 1, {2, 4}, {{"codes", DType::kU8, {2, 2}}, {"scales", DType::kF32, {2}}}},
      {"norm.weight", "dense", 1, {4}, {{"", DType::kBF16, {4}}}},
      {"layer", "odd", 7, {}, {{"empty", DType::kI64, {0}}, {"one", DType::kU16, {}}}},
  };
  return plan;
}

void write_small(const std::string& path) {
  UpgWriter writer(path, small_plan());
  writer.append("norm.weight", "", as_bytes("norm"));
  writer.append("layer.weight", "scales", as_bytes("scalesss"));
  writer.append("layer.weight", "codes", as_bytes("co"));
  writer.set_relative_error("layer.weight", 0.01234567);
  writer.append("layer.weight", "codes", as_bytes("de"));
  writer.append("norm.weight", "", as_bytes("full"));
  writer.append("layer", "one", as_bytes("11"));
  writer.finish();
}

void expect_small(const UpgFile& file) {
  const UpgPlan plan = small_plan();
  EXPECT_EQ(file.version(), "3.0");
  EXPECT_EQ(file.architecture(), plan.architecture);
  EXPECT_EQ(file.producer(), plan.producer);
  EXPECT_EQ(file.texts().config, plan.texts.config);
  EXPECT_EQ(file.texts().generation_config, plan.texts.generation_config);
  EXPECT_EQ(file.texts().tokenizer, plan.texts.tokenizer);
  EXPECT_EQ(file.texts().tokenizer_config, plan.texts.tokenizer_config);
  EXPECT_EQ(file.texts().chat_template, plan.texts.chat_template);
  EXPECT_EQ(file.tokenizer_json(), plan.texts.tokenizer);
  ASSERT_EQ(file.entries().size(), 3u);
  const UpgEntry* layer = file.find("layer.weight");
  ASSERT_NE(layer, nullptr);
  EXPECT_EQ(layer->codec, "trellis3");
  EXPECT_EQ(layer->codec_version, 1u);
  EXPECT_EQ(layer->shape, (std::vector<uint64_t>{2, 4}));
  EXPECT_EQ(layer->elements(), 8u);
  EXPECT_EQ(layer->stored_bytes(), 12u);
  ASSERT_TRUE(layer->relative_error);
  EXPECT_DOUBLE_EQ(*layer->relative_error, 1.234567e-2);
  ASSERT_EQ(layer->parts.size(), 2u);
  EXPECT_EQ(layer->parts[0].name, "scales");  // in the order of their data
  EXPECT_EQ(layer->parts[1].name, "codes");
  EXPECT_EQ(std::memcmp(layer->parts[1].data.data(), "code", 4), 0);
  const UpgEntry* norm = file.find("norm.weight");
  ASSERT_EQ(norm->parts.size(), 1u);
  EXPECT_EQ(norm->parts[0].name, "");
  EXPECT_EQ(norm->parts[0].dtype, DType::kBF16);
  EXPECT_FALSE(norm->relative_error);
  EXPECT_EQ(file.find("layer")->parts.size(), 2u);
  EXPECT_EQ(file.find("lay"), nullptr);
  file.verify_checksums();
}

/// `bytes` at an address as aligned as a mapping's.
class Aligned {
 public:
  explicit Aligned(std::string_view bytes) : words_(bytes.size() / 8 + 1), size_(bytes.size()) {
    std::memcpy(words_.data(), bytes.data(), bytes.size());
  }
  std::span<const std::byte> bytes() const { return as_bytes(words_).first(size_); }

 private:
  std::vector<uint64_t> words_;
  size_t size_;
};

std::string open_error(std::string_view file) {
  const Aligned aligned(file);
  return error_of([&] { UpgFile::from_bytes(aligned.bytes(), "x.upg"); }).value_or("accepted");
}

/// The small file with its metadata changed and a header checksum that fits.
std::string with_metadata(const std::string& file, const std::function<void(Json& metadata)>& edit) {
  const auto original = SafetensorsFile::from_bytes(as_bytes(file), "x.upg");
  const size_t data_at = 8 + original.header_json().size();
  Json header = Json::parse(original.header_json());
  edit(header["__metadata__"]);
  std::string text = header.dump();
  text.resize((text.size() + 8 + 63) / 64 * 64 - 8, ' ');
  const size_t at = find_header_checksum(text);
  if (at != std::string::npos) text.replace(at, kChecksumDigits, header_checksum(text, at));
  return testing_util::raw_safetensors(text, file.substr(data_at));
}

class UpgFileTest : public testing_util::TemporaryFolderTest {
 protected:
  void SetUp() override {
    TemporaryFolderTest::SetUp();
    write_small(path("a.upg"));
    file_ = read_file(path("a.upg"));
  }
  std::string file_;
};

TEST_F(UpgFileTest, EverythingWrittenIsReadBack) { expect_small(UpgFile::open(path("a.upg"))); }

TEST_F(UpgFileTest, GoldenFileOfVersion3IsStillReadTheSame) {
  expect_small(UpgFile::open(UPG_SOURCE_DIR "/tests/data/format/golden_v3.upg"));
}

TEST_F(UpgFileTest, ProgressReachesTheTotalAndMayCancel) {
  const UpgFile file = UpgFile::open(path("a.upg"));
  uint64_t last = 0, all = 0;
  file.verify_checksums([&](uint64_t done, uint64_t total) { last = done, all = total; });
  EXPECT_EQ(last, all);
  EXPECT_GT(all, 0u);
  EXPECT_THROW(file.verify_checksums([](uint64_t, uint64_t) { throw Error(ErrorCode::kCancelled, "stop"); }), Error);
}

TEST_F(UpgFileTest, OptionalTextsMayBeAbsent) {
  UpgPlan plan = small_plan();
  plan.texts = {"{}", "", "", "", ""};
  plan.version = "2.0";
  plan.entries.resize(1);
  UpgWriter writer(path("b.upg"), plan);
  writer.append("layer.weight", "codes", as_bytes("code"));
  writer.append("layer.weight", "scales", as_bytes("scalesss"));
  writer.finish();
  const UpgFile file = UpgFile::open(path("b.upg"));
  EXPECT_EQ(file.version(), "2.0");
  EXPECT_TRUE(file.tokenizer_json().empty());
  EXPECT_TRUE(file.chat_template().empty());
}

TEST_F(UpgFileTest, EveryTruncationIsRefused) {
  for (size_t size = 0; size < file_.size(); ++size) ASSERT_NE(open_error(file_.substr(0, size)), "accepted") << size;
  EXPECT_NE(open_error(file_ + " "), "accepted");
}

TEST_F(UpgFileTest, EveryFlippedHeaderBitOrByteIsRefusedAtOpening) {
  const size_t data_at = 8 + SafetensorsFile::open(path("a.upg")).header_json().size();
  for (size_t at = 0; at < data_at; ++at)
    for (const int mask : {0xff, 1, 2, 4, 8, 16, 32, 64, 128}) {
      std::string damaged = file_;
      damaged[at] = static_cast<char>(damaged[at] ^ mask);
      ASSERT_NE(open_error(damaged), "accepted") << "byte " << at << " mask " << mask;
    }
}

TEST_F(UpgFileTest, EveryFlippedDataBitOrByteIsFoundByVerify) {
  const size_t data_at = 8 + SafetensorsFile::open(path("a.upg")).header_json().size();
  for (size_t at = data_at; at < file_.size(); ++at)
    for (const int mask : {0xff, 1, 2, 4, 8, 16, 32, 64, 128}) {
      std::string damaged = file_;
      damaged[at] = static_cast<char>(damaged[at] ^ mask);
      const Aligned aligned(damaged);
      const UpgFile file = UpgFile::from_bytes(aligned.bytes(), "x.upg");
      const auto message = error_of([&] { file.verify_checksums(); });
      ASSERT_TRUE(message) << "byte " << at << " mask " << mask;
      ASSERT_THAT(*message, HasSubstr("tensor \""));
    }
}

TEST_F(UpgFileTest, EachMetadataValueIsChecked) {
  const auto error_with = [&](std::string_view key, const Json& value) {
    return open_error(with_metadata(file_, [&](Json& metadata) { metadata[std::string(key)] = value; }));
  };
  const auto error_without = [&](std::string_view key) {
    return open_error(with_metadata(file_, [&](Json& metadata) { metadata.erase(std::string(key)); }));
  };
  EXPECT_EQ(open_error(with_metadata(file_, [](Json&) {})), "accepted");
  EXPECT_THAT(error_without(upg_key::kVersion), HasSubstr("not a UPG file"));
  for (const auto key :
       {upg_key::kArchitecture, upg_key::kConfig, upg_key::kTensors, upg_key::kChecksums, upg_key::kHeaderChecksum})
    EXPECT_THAT(error_without(key), HasSubstr(fmt::format("\"{}\" is missing", key)));
  EXPECT_THAT(error_with(upg_key::kVersion, "4.0"), HasSubstr("\"4.0\""));
  EXPECT_THAT(error_with(upg_key::kConfig, "{"), HasSubstr("upg.config: not valid JSON"));
  EXPECT_THAT(error_with(upg_key::kConfig, "[]"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(error_with(upg_key::kGenerationConfig, "x"), HasSubstr("upg.generation_config"));
  EXPECT_THAT(error_with(upg_key::kTokenizerConfig, "x"), HasSubstr("upg.tokenizer_config"));
  EXPECT_THAT(error_with(upg_key::kHeaderChecksum, "12"), HasSubstr("hexadecimal"));
  EXPECT_THAT(error_with(upg_key::kChecksums, "{}"), HasSubstr("has no checksum"));
  EXPECT_THAT(error_with(upg_key::kChecksums, R"({"what":"0000000000000000"})"), HasSubstr("\"what\""));
  EXPECT_THAT(error_with(upg_key::kTensors, "{}"), HasSubstr("belongs to no entry"));
}

TEST_F(UpgFileTest, EachFieldOfAnEntryIsChecked) {
  const auto error_with = [&](const std::function<void(Json & entries)>& edit) {
    return open_error(with_metadata(file_, [&](Json& metadata) {
      const std::string key(upg_key::kTensors);
      Json entries = Json::parse(metadata[key].get<std::string>());
      edit(entries);
      metadata[key] = entries.dump();
    }));
  };
  const auto error_for = [&](const char* field, const Json& value) {
    return error_with([&](Json& entries) { entries["layer.weight"][field] = value; });
  };
  EXPECT_THAT(error_for("codec", 3), HasSubstr("\"codec\""));
  EXPECT_THAT(error_for("codec_version", -1), HasSubstr("\"codec_version\""));
  EXPECT_THAT(error_for("codec_version", 1ull << 32), HasSubstr("\"codec_version\""));
  EXPECT_THAT(error_for("shape", "x"), HasSubstr("\"shape\""));
  EXPECT_THAT(error_for("shape", {1ull << 40, 1ull << 40}), HasSubstr("\"shape\""));
  EXPECT_THAT(error_for("shape", std::vector<int>(9, 1)), HasSubstr("\"shape\""));
  EXPECT_THAT(error_for("relative_error", -0.5), HasSubstr("\"relative_error\""));
  EXPECT_THAT(error_for("relative_error", "x"), HasSubstr("\"relative_error\""));
  EXPECT_THAT(error_with([](Json& entries) { entries["layer.weight"] = 1; }), HasSubstr("not a JSON object"));
  EXPECT_THAT(error_with([](Json& entries) { entries["ghost"] = entries["layer"]; }),
              HasSubstr("\"ghost\" of upg.tensors has no stored tensor"));
}

TEST_F(UpgFileTest, PlansThatAReaderWouldRefuseAreRefused) {
  const auto error_with = [&](const std::function<void(UpgPlan&)>& edit) {
    UpgPlan plan = small_plan();
    edit(plan);
    return error_of([&] { UpgWriter(path("b.upg"), plan); }).value_or("accepted");
  };
  EXPECT_EQ(error_with([](UpgPlan&) {}), "accepted");
  EXPECT_THAT(error_with([](UpgPlan& plan) { plan.version = "9"; }), HasSubstr("version"));
  EXPECT_THAT(error_with([](UpgPlan& plan) { plan.architecture = ""; }), HasSubstr("upg.architecture"));
  EXPECT_THAT(error_with([](UpgPlan& plan) { plan.texts.config = ""; }), HasSubstr("config.json"));
  EXPECT_THAT(error_with([](UpgPlan& plan) {
                plan.texts.chat_template = "\xff";
                plan.entries.clear();
                plan.texts.tokenizer = "{}";
              }),
              HasSubstr("UTF-8"));
  EXPECT_THAT(error_with([](UpgPlan& plan) { plan.entries[1].name = "layer"; }), HasSubstr("must be new"));
  EXPECT_THAT(error_with([](UpgPlan& plan) { plan.entries[1].name = "upg.tokenizer"; }), HasSubstr("tokenizer"));
  EXPECT_THAT(error_with([](UpgPlan& plan) { plan.entries[1].parts.clear(); }), HasSubstr("no parts"));
  EXPECT_THAT(error_with([](UpgPlan& plan) { plan.entries[1].parts[0].suffix = "a.b"; }), HasSubstr("suffix"));
  EXPECT_THAT(error_with([](UpgPlan& plan) { plan.entries[2].parts[0].suffix = "weight"; }),
              HasSubstr("another entry"));
  EXPECT_THAT(error_with([](UpgPlan& plan) { plan.entries[0].parts[1].suffix = "codes"; }), HasSubstr("twice"));
}

TEST_F(UpgFileTest, UnfinishedOrMisusedWriterLeavesNoFile) {
  {
    UpgWriter writer(path("b.upg"), small_plan());
    EXPECT_THAT(error_of([&] { writer.finish(); }).value_or(""), HasSubstr("layer.weight.codes"));
    EXPECT_THAT(error_of([&] { writer.append("x", "y", {}); }).value_or(""), HasSubstr("x.y"));
    EXPECT_THAT(error_of([&] { writer.set_relative_error("x", 0); }).value_or(""), HasSubstr("\"x\""));
    EXPECT_THAT(error_of([&] { writer.set_relative_error("layer", -1); }).value_or(""), HasSubstr("-1"));
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir_), {}), 1);
}

TEST_F(UpgFileTest, DetectionTellsUpgFilesFromOthersEvenTruncated) {
  EXPECT_TRUE(is_upg_file(path("a.upg")));
  write_file(path("cut"), file_.substr(0, file_.size() / 2));
  EXPECT_TRUE(is_upg_file(path("cut")));
  write_file(path("empty"), "");
  EXPECT_FALSE(is_upg_file(path("empty")));
  EXPECT_FALSE(is_upg_file(UPG_SOURCE_DIR "/tests/data/format/reference_writer.safetensors"));
  EXPECT_THROW(is_upg_file(path("none")), Error);
}

}  // namespace
}  // namespace upg
