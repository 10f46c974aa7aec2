// The file's bytes; what is wrong in a tensor is named, and nothing is left behind.
#include "export/gguf_writer.h"

#include "export/test_util.h"

namespace upg {
namespace {

using namespace testing_util;
using ::testing::HasSubstr;

class GgufWriterTest : public TemporaryFolderTest {
 protected:
  // Element i of row r is 100 r + i.
  static GgufTensor tensor(const std::string& name, const char* type, std::vector<uint64_t> shape) {
    GgufTensor t;
    t.name = name;
    t.type = find_gguf_type(type);
    t.shape = std::move(shape);
    t.read = [cols = t.cols()](uint64_t row, float* out) {
      for (uint64_t i = 0; i < cols; ++i) out[i] = static_cast<float>(100 * row + i);
    };
    return t;
  }
  size_t files() const { return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(dir_), {})); }
  ThreadPool pool_{3};
};

TEST_F(GgufWriterTest, TheBytesAreTheFormats) {
  const uint64_t bytes =
      write_gguf(path("a"), {{"k", uint32_t{7}}, {"s", std::string("xy")}}, {tensor("t", "f32", {1, 2})}, pool_);
  std::string want("GGUF\3\0\0\0", 8);
  want += std::string("\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0", 16);                           // tensors, values
  want += std::string("\1\0\0\0\0\0\0\0k\4\0\0\0\7\0\0\0", 17);                          // u32
  want += std::string("\1\0\0\0\0\0\0\0s\10\0\0\0\2\0\0\0\0\0\0\0xy", 23);               // string
  want += std::string("\1\0\0\0\0\0\0\0t\2\0\0\0\2\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0", 29);  // columns, rows
  want += std::string("\0\0\0\0\0\0\0\0\0\0\0\0", 12);                                   // type, offset
  want.resize(128);                                                                      // aligned to 32
  want += std::string("\0\0\0\0\0\0\200\77", 8);                                         // 0, 1
  want.resize(160);
  EXPECT_EQ(read_file(path("a")), want);
  EXPECT_EQ(bytes, want.size());
}

TEST_F(GgufWriterTest, ValuesAndTensorsOfEveryKindReadBack) {
  const GgufMetadata metadata = {{"f", 0.5f},
                                 {"b", true},
                                 {"bytes", std::vector<uint8_t>{1, 255}},
                                 {"ints", std::vector<int32_t>{-1, 5}},
                                 {"floats", std::vector<float>{-2.5f}},
                                 {"bools", std::vector<bool>{true, false, true}},
                                 {"texts", std::vector<std::string>{"", "a\0b", "\xe2\x96\x81"}}};
  uint64_t done = 0;
  write_gguf(path("a"), metadata,
             {tensor("half", "f16", {3, 2, 5}), tensor("vector", "f32", {7}), tensor("q8", "q8_0", {2, 64}),
              tensor("wide", "bf16", {1, 3})},
             pool_, [&](uint64_t n) { done += n; });
  const ReadGguf file(path("a"));
  for (const auto& [key, value] : metadata) EXPECT_EQ(file.values.at(key), value) << key;
  EXPECT_EQ(file.tensors.at("half").shape, (std::vector<uint64_t>{3, 2, 5}));
  EXPECT_EQ(file.tensors.at("half").floats()[5 * 5 + 4], 504.0f);
  EXPECT_EQ(file.tensors.at("vector").floats(), (std::vector<float>{0, 1, 2, 3, 4, 5, 6}));
  EXPECT_NEAR(file.tensors.at("q8").floats()[64 + 63], 163.0f, 163.0f / 254);
  EXPECT_EQ(done, 30u + 7 + 128 + 3);
}

TEST_F(GgufWriterTest, ManyPiecesComeInOrder) {
  auto big = tensor("t", "f32", {9000, 96});
  write_gguf(path("a"), {}, {big}, pool_);
  const std::vector<float> floats = ReadGguf(path("a")).tensors.at("t").floats();
  for (uint64_t row = 0; row < 9000; ++row) ASSERT_EQ(floats[row * 96 + 95], static_cast<float>(100 * row + 95));
}

TEST_F(GgufWriterTest, GrainsAreReadWhole) {
  auto t = tensor("t", "f32", {4, 3, 2});
  t.grain = 3;
  t.read = [](uint64_t row, float* out) {
    EXPECT_EQ(row % 3, 0u);
    for (int i = 0; i < 6; ++i) out[i] = static_cast<float>(10 * row + static_cast<uint64_t>(i));
  };
  write_gguf(path("a"), {}, {t}, pool_);
  EXPECT_EQ(ReadGguf(path("a")).tensors.at("t").floats()[3 * 6 + 5], 95.0f);
}

TEST_F(GgufWriterTest, ValuesThatCannotBeWrittenAreNamedAndNothingIsLeft) {
  auto broken = tensor("blk.0.x", "f16", {4, 8});
  const auto put = [&](float value) {
    broken.read = [value](uint64_t row, float* out) {
      std::fill_n(out, 8, 0.0f);
      if (row == 2) out[5] = value;
    };
  };
  put(NAN);
  EXPECT_THAT(*error_of([&] { write_gguf(path("a"), {}, {broken}, pool_); }),
              HasSubstr("tensor blk.0.x has nan at row 2, column 5"));
  put(70000);
  EXPECT_THAT(*error_of([&] { write_gguf(path("a"), {}, {broken}, pool_); }), HasSubstr("too large for f16"));
  EXPECT_EQ(files(), 0u);
}

}  // namespace
}  // namespace upg
