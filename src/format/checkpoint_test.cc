// Checkpoint folders: reading one file or shards, what is refused, and writing what can be read again.
#include "format/checkpoint.h"

#include "base/atomic_file.h"
#include "base/float16.h"
#include "base/mapped_file.h"
#include "format/checkpoint_writer.h"
#include "format/convert.h"
#include "format/json.h"
#include "format/safetensors_writer.h"
#include "format/test_util.h"

namespace upg {
namespace {

using ::testing::HasSubstr;
using testing_util::as_bytes;
using testing_util::error_of;

class CheckpointTest : public testing_util::TemporaryFolderTest {
 protected:
  void write_shard(const std::string& name, const std::vector<std::string>& tensors) const {
    SafetensorsWriter writer(path(name));
    for (const std::string& tensor : tensors) writer.declare(tensor, DType::kU8, {tensor.size()});
    for (const std::string& tensor : tensors) writer.append(tensor, as_bytes(tensor));
    writer.commit();
  }
  void write_index(const Json& weight_map) const {
    write_file(path("model.safetensors.index.json"), Json{{"weight_map", weight_map}}.dump());
  }
  std::string error() const {
    return error_of([&] { Checkpoint checkpoint(dir_.string()); }).value_or("accepted");
  }
};

/// Element i of tensor number t: exact in every float type.
float value_of(size_t t, uint64_t i) { return static_cast<float>(static_cast<int>((i * 7 + t * 3) % 31) - 15) * 0.25f; }

std::vector<CheckpointTensor> some_tensors() {
  std::vector<CheckpointTensor> tensors = {
      {"b.weight", DType::kBF16, {5, 7}, {}},   {"a.weight", DType::kF32, {3}, {}},
      {"c.weight", DType::kF16, {2, 2, 2}, {}}, {"scalar", DType::kF32, {}, {}},
      {"none", DType::kF32, {0, 4}, {}},        {"large", DType::kBF16, {1500, 1001}, {}}};
  for (size_t t = 0; t < tensors.size(); ++t) {
    const uint64_t cols = tensors[t].shape.empty() ? 1 : tensors[t].shape.back();
    tensors[t].read = [t, cols](uint64_t first, std::span<float> out) {
      EXPECT_EQ(first % cols, 0u);
      EXPECT_EQ(out.size() % cols, 0u);
      for (size_t i = 0; i < out.size(); ++i) out[i] = value_of(t, first + i);
    };
  }
  return tensors;
}

void expect_tensors(const Checkpoint& checkpoint) {
  const auto tensors = some_tensors();
  ASSERT_EQ(checkpoint.tensors().size(), tensors.size());
  for (size_t t = 0; t < tensors.size(); ++t) {
    const TensorView* view = checkpoint.find(tensors[t].name);
    ASSERT_NE(view, nullptr);
    EXPECT_EQ(view->dtype, tensors[t].dtype);
    EXPECT_EQ(view->shape, tensors[t].shape);
    std::vector<float> values(view->elements());
    read_floats(*view, 0, values);
    for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], value_of(t, i)) << view->name << " " << i;
  }
}

TEST_F(CheckpointTest, WrittenCheckpointIsReadBack) {
  const ModelTexts texts = {"{\"a\": 1}", "{}", "{\"t\": 1}", R"({"chat_template": "other"})", "{{ y }}"};
  uint64_t last = 0, all = 0;
  CheckpointWriteOptions options;
  options.progress = [&](uint64_t done, uint64_t total) { last = done, all = total; };
  write_checkpoint(path("out/deep"), texts, some_tensors(), options);
  EXPECT_EQ(last, all);
  const Checkpoint checkpoint(path("out/deep"));
  expect_tensors(checkpoint);
  EXPECT_EQ(checkpoint.texts().config, texts.config);
  EXPECT_EQ(checkpoint.texts().generation_config, texts.generation_config);
  EXPECT_EQ(checkpoint.texts().tokenizer, texts.tokenizer);
  EXPECT_EQ(checkpoint.texts().tokenizer_config, texts.tokenizer_config);
  EXPECT_EQ(checkpoint.texts().chat_template, texts.chat_template);
  EXPECT_EQ(SafetensorsFile::open(path("out/deep/model.safetensors")).metadata().at("format"), "pt");
  EXPECT_THAT(error_of([&] { write_checkpoint(path("out/deep"), texts, {}); }).value_or(""),
              HasSubstr("already holds"));
}

TEST_F(CheckpointTest, AVocabularyFileIsReadOnlyWhereThereIsNoTokenizerJson) {
  write_checkpoint(path("out"), {"{}", "", "", "", ""}, some_tensors(), {});
  EXPECT_EQ(Checkpoint(path("out")).texts().vocabulary_file, "");
  write_file(path("out/qwen.tiktoken"), "YQ== 0");
  EXPECT_EQ(Checkpoint(path("out")).texts().vocabulary, "YQ== 0");
  EXPECT_EQ(Checkpoint(path("out")).texts().vocabulary_file, "qwen.tiktoken");
  write_file(path("out/tokenizer.model"), "m");
  EXPECT_EQ(Checkpoint(path("out")).texts().vocabulary, "m");
  write_file(path("out/tokenizer.json"), "{}");
  EXPECT_EQ(Checkpoint(path("out")).texts().vocabulary_file, "");
}

TEST_F(CheckpointTest, LargeCheckpointIsCutIntoShardsWithAnIndex) {
  CheckpointWriteOptions options;
  options.max_shard_bytes = 90;
  write_checkpoint(path("out"), {"{}", "", "", "", ""}, some_tensors(), options);
  EXPECT_FALSE(std::filesystem::exists(path("out/model.safetensors")));
  EXPECT_TRUE(std::filesystem::exists(path("out/model-00001-of-00003.safetensors")));
  const Json index = Json::parse(read_file(path("out/model.safetensors.index.json")));
  EXPECT_EQ(index["metadata"]["total_size"], 70 + 12 + 16 + 4 + 1500 * 1001 * 2);
  EXPECT_EQ(index["weight_map"]["large"], "model-00003-of-00003.safetensors");
  expect_tensors(Checkpoint(path("out")));
}

TEST_F(CheckpointTest, FailedWriteLeavesNoShards) {
  auto tensors = some_tensors();
  tensors.back().read = [](uint64_t, std::span<float>) { throw Error(ErrorCode::kCancelled, "stop"); };
  CheckpointWriteOptions options;
  options.max_shard_bytes = 90;
  EXPECT_THROW(write_checkpoint(path("out"), {"{}", "", "", "", ""}, tensors, options), Error);
  EXPECT_TRUE(std::filesystem::is_empty(path("out")));
}

TEST_F(CheckpointTest, MissingFilesAreNamed) {
  EXPECT_THAT(error_of([&] { Checkpoint checkpoint(path("none")); }).value_or(""), HasSubstr("no such folder"));
  EXPECT_THAT(error(), HasSubstr("config.json is missing"));
  write_file(path("config.json"), "{}");
  EXPECT_THAT(error_of([&] { Checkpoint checkpoint(path("config.json")); }).value_or(""), HasSubstr("not a folder"));
  EXPECT_THAT(error(), HasSubstr("neither model.safetensors nor"));
  write_file(path("pytorch_model.bin"), "x");
  EXPECT_THAT(error(), HasSubstr("convert it"));
}

TEST_F(CheckpointTest, ShardsAreCheckedAgainstTheIndex) {
  write_file(path("config.json"), "{}");
  write_shard("s1", {"a", "bb"});
  write_shard("s2", {"ccc"});
  write_index({{"a", "s1"}, {"bb", "s1"}, {"ccc", "s2"}});
  EXPECT_EQ(error(), "accepted");
  EXPECT_EQ(Checkpoint(dir_.string()).find("ccc")->data.size(), 3u);
  EXPECT_EQ(Checkpoint(dir_.string()).find("d"), nullptr);
  write_index({{"a", "s1"}, {"x", "s3"}});
  EXPECT_THAT(error(), HasSubstr("shard \"s3\" is missing"));
  write_index({{"a", "s1"}, {"bb", "s2"}, {"ccc", "s2"}});
  EXPECT_THAT(error(), HasSubstr("tensor \"bb\" is not in"));
  write_shard("s2", {"ccc", "a"});
  write_index({{"a", "s1"}, {"bb", "s1"}, {"ccc", "s2"}});
  EXPECT_THAT(error(), HasSubstr("tensor \"a\" is in two shards"));
  for (const char* escape : {"../s1", "/etc/passwd", "sub/s1", "..", ".", "", "a\\b"}) {
    write_index({{"a", escape}});
    EXPECT_THAT(error(), HasSubstr("not a plain file name")) << escape;
  }
  write_index({{"a", 1}});
  EXPECT_THAT(error(), HasSubstr("not a string"));
  write_index(Json::object());
  EXPECT_THAT(error(), HasSubstr("weight_map"));
}

TEST_F(CheckpointTest, ChatTemplateComesFromTheTokenizerConfigurationWhereThereIsNoFile) {
  write_file(path("config.json"), "{}");
  write_shard("model.safetensors", {"a"});
  const auto chat_template = [&](const char* tokenizer_config) {
    write_file(path("tokenizer_config.json"), tokenizer_config);
    return Checkpoint(dir_.string()).texts().chat_template;
  };
  EXPECT_EQ(chat_template(R"({})"), "");
  EXPECT_EQ(chat_template(R"({"chat_template": "T"})"), "T");
  EXPECT_EQ(chat_template(R"({"chat_template": null})"), "");
  EXPECT_EQ(
      chat_template(R"({"chat_template": [{"name": "tool", "template": "U"}, {"name": "default", "template": "D"}]})"),
      "D");
  write_file(path("chat_template.jinja"), "F");
  EXPECT_EQ(chat_template(R"({"chat_template": "T"})"), "F");
}

TEST(Convert, FloatsOfEveryTypeAreReadAtAnyAddress) {
  const std::vector<float> values = {0.0f, -1.5f, 0.25f, 100.0f, -3.0f};
  std::vector<std::byte> buffer(64);
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kF64}) {
    const size_t bytes = values.size() * dtype_info(dtype).bytes;
    const auto place = std::span(buffer).subspan(1, bytes);
    if (dtype == DType::kF64) {
      const std::vector<double> doubles(values.begin(), values.end());
      std::memcpy(place.data(), doubles.data(), bytes);
    } else {
      write_floats(dtype, values, place);
    }
    const TensorView view{"w", dtype, {values.size()}, place};
    std::vector<float> out(3);
    read_floats(view, 2, out);
    EXPECT_EQ(out, std::vector<float>(values.begin() + 2, values.end())) << dtype_info(dtype).name;
    EXPECT_THAT(error_of([&] { read_floats(view, 3, out); }).value_or(""), HasSubstr("cannot read 3 from number 3"));
    EXPECT_THAT(error_of([&] { read_floats(view, UINT64_MAX, out); }).value_or(""), HasSubstr("cannot read"));
  }
}

TEST(Convert, OtherTypesAreUnsupported) {
  const std::vector<uint8_t> data(8);
  std::vector<float> out(1);
  for (const DTypeInfo& info : kDTypes) {
    const TensorView view{"w", info.type, {8 / info.bytes}, as_bytes(data)};
    EXPECT_EQ(error_of([&] { read_floats(view, 0, out); }).has_value(), !is_float_dtype(info.type)) << info.name;
  }
  ErrorCode code{};
  error_of([&] { read_floats({"w", DType::kI8, {8}, as_bytes(data)}, 0, out); }, &code);
  EXPECT_EQ(code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace upg
