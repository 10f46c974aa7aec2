// What the writer writes, the reader reads; layout rules; nothing is left behind by a writer that is given up.
#include "format/safetensors_writer.h"

#include "base/mapped_file.h"
#include "format/safetensors.h"
#include "format/test_util.h"

namespace upg {
namespace {

using ::testing::HasSubstr;
using testing_util::as_bytes;
using testing_util::error_of;

class SafetensorsWriterTest : public testing_util::TemporaryFolderTest {
 protected:
  size_t files() const { return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(dir_), {})); }
};

std::vector<uint8_t> pattern(size_t bytes, size_t seed) {
  std::vector<uint8_t> data(bytes);
  for (size_t i = 0; i < bytes; ++i) data[i] = static_cast<uint8_t>(i * 31 + seed * 97 + i / 251);
  return data;
}

TEST_F(SafetensorsWriterTest, TensorsOfEveryTypeAndSizeRoundTripAligned) {
  const uint64_t sizes[] = {0, 1, 3, 64, 65, 1000, 4096};
  SafetensorsWriter writer(path("a"), {{"key",
                                        "va\"l\xc3\xbc"
                                        "e"}});
  for (const DTypeInfo& info : kDTypes)
    for (uint64_t size : sizes) writer.declare(fmt::format("{}_{}", info.name, size), info.type, {size, 1});
  size_t seed = 0;
  for (const DTypeInfo& info : kDTypes)
    for (uint64_t size : sizes) {
      const auto data = pattern(size * info.bytes, seed++);
      const auto bytes = as_bytes(data);
      const std::string name = fmt::format("{}_{}", info.name, size);
      writer.append(name, bytes.first(bytes.size() / 3));
      writer.append(name, bytes.subspan(bytes.size() / 3));
      EXPECT_EQ(writer.checksum(name), checksum_hex(bytes));
    }
  writer.commit();

  const auto file = SafetensorsFile::open(path("a"));
  EXPECT_EQ(file.metadata().at("key"),
            "va\"l\xc3\xbc"
            "e");
  EXPECT_EQ(file.header_json().size() % 64, 56u);
  EXPECT_EQ(file.tensors().size(), kDTypes.size() * std::size(sizes));
  seed = 0;
  for (const DTypeInfo& info : kDTypes)
    for (uint64_t size : sizes) {
      const TensorView* view = file.find(fmt::format("{}_{}", info.name, size));
      ASSERT_NE(view, nullptr);
      EXPECT_EQ(view->dtype, info.type);
      EXPECT_EQ(view->shape, (std::vector<uint64_t>{size, 1}));
      const auto data = pattern(size * info.bytes, seed++);
      EXPECT_TRUE(std::equal(view->data.begin(), view->data.end(), as_bytes(data).begin()));
      EXPECT_TRUE(is_aligned(*view)) << view->name;
      if (view->data.size() % 64 == 0) {
        EXPECT_EQ(reinterpret_cast<uintptr_t>(view->data.data()) % 64, 0u) << view->name;
      }
    }
}

TEST_F(SafetensorsWriterTest, MetadataMayShrinkButNotGrowAfterDataBegan) {
  SafetensorsWriter writer(path("a"), {{"k", std::string(100, '0')}});
  writer.declare("t", DType::kU8, {1});
  writer.append("t", as_bytes("x"));
  writer.set_metadata("k", std::string(500, '1'));
  EXPECT_THAT(error_of([&] { writer.commit(); }).value_or(""), HasSubstr("metadata grew"));
  writer.set_metadata("k", "short");
  writer.commit();
  EXPECT_EQ(SafetensorsFile::open(path("a")).metadata().at("k"), "short");
}

TEST_F(SafetensorsWriterTest, FileWithoutTensorsIsValid) {
  SafetensorsWriter(path("a")).commit();
  EXPECT_TRUE(SafetensorsFile::open(path("a")).tensors().empty());
}

TEST_F(SafetensorsWriterTest, MisuseIsAnErrorAndLeavesNoFile) {
  {
    SafetensorsWriter writer(path("a"));
    writer.declare("t", DType::kF32, {2});
    EXPECT_THAT(error_of([&] { writer.declare("t", DType::kF32, {2}); }).value_or(""), HasSubstr("used twice"));
    EXPECT_THAT(error_of([&] { writer.declare("__metadata__", DType::kF32, {2}); }).value_or(""),
                HasSubstr("reserved"));
    EXPECT_THAT(error_of([&] { writer.declare("u", DType::kF32, {UINT64_MAX / 2}); }).value_or(""),
                HasSubstr("overflow"));
    EXPECT_THAT(error_of([&] { writer.append("v", {}); }).value_or(""), HasSubstr("not declared"));
    EXPECT_THAT(error_of([&] { writer.append("t", as_bytes("123456789")); }).value_or(""), HasSubstr("1 bytes more"));
    writer.append("t", as_bytes("1234567"));
    EXPECT_THAT(error_of([&] { writer.commit(); }).value_or(""), HasSubstr("7 of 8 bytes"));
  }
  EXPECT_EQ(files(), 0u);
}

TEST_F(SafetensorsWriterTest, MissingFolderIsAnIoErrorNamingTheFile) {
  ErrorCode code{};
  const auto message = error_of([] { SafetensorsWriter writer("/nonexistent/a"); }, &code);
  EXPECT_EQ(code, ErrorCode::kIo);
  EXPECT_THAT(message.value_or(""), HasSubstr("/nonexistent/a"));
}

TEST(Checksum, PiecesGiveTheSameAsTheWholeAndMatchKnownValues) {
  EXPECT_EQ(checksum_hex({}), "2d06800538d394c2");  // XXH3's published value for no input
  const auto data = pattern(100'000, 1);
  Checksum checksum;
  for (size_t at = 0; at < data.size(); at += 777)
    checksum.update(as_bytes(data).subspan(at, std::min<size_t>(777, data.size() - at)));
  EXPECT_EQ(checksum.hex(), checksum_hex(as_bytes(data)));
}

}  // namespace
}  // namespace upg
