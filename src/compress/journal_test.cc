// The journal keeps whole records over an interruption and drops whatever was not finished.
#include "compress/journal.h"

#include <cstring>

#include "base/atomic_file.h"
#include "base/mapped_file.h"
#include "codec/codec_table.h"
#include "format/test_util.h"

namespace upg {
namespace {

using namespace testing_util;
using ::testing::HasSubstr;

const std::string kPrint = "0123456789abcdef";

EncodedMatrix small_matrix(float value) {
  const RowSource source = [=](uint64_t row, std::span<float> out) {
    for (size_t c = 0; c < out.size(); ++c) out[c] = value * static_cast<float>(row + c + 1);
  };
  return find_codec("trellis3").encode(5, 40, source, {});
}

bool same(const EncodedMatrix& a, const EncodedMatrix& b) {
  if (a.codec != b.codec || a.rows != b.rows || a.cols != b.cols || a.components.size() != b.components.size())
    return false;
  for (size_t i = 0; i < a.components.size(); ++i)
    if (a.components[i].suffix != b.components[i].suffix || a.components[i].dtype != b.components[i].dtype ||
        a.components[i].shape != b.components[i].shape || a.components[i].data != b.components[i].data)
      return false;
  return true;
}

class JournalTest : public TemporaryFolderTest {
 protected:
  std::string target() const { return path("model.upg"); }
};

TEST_F(JournalTest, WhatWasWrittenIsThereWhenItIsOpenedAgain) {
  const EncodedMatrix a = small_matrix(1), b = small_matrix(-2);
  {
    Journal journal(target(), kPrint);
    EXPECT_TRUE(journal.empty());
    journal.append("a", {{"error", 0.5}}, &a);
    journal.append("facts", {{"x", 1}});
    journal.append("b", {}, &b);
  }
  const Journal journal(target(), kPrint);
  ASSERT_NE(journal.find("a"), nullptr);
  EXPECT_EQ(journal.find("a")->note.at("error"), 0.5);
  EXPECT_TRUE(same(journal.load(*journal.find("a")), a));
  EXPECT_TRUE(same(journal.load(*journal.find("b")), b));
  EXPECT_EQ(journal.find("facts")->note.at("x"), 1);
  EXPECT_EQ(journal.find("c"), nullptr);
}

TEST_F(JournalTest, WhatIsCutGivesItsSpaceBackAndTheRestStays) {
  const EncodedMatrix a = small_matrix(1), b = small_matrix(-2);
  uint64_t first = 0;
  {
    Journal journal(target(), kPrint);
    journal.append("a", {}, &a);
    first = std::filesystem::file_size(journal.path());
    journal.append("b", {}, &b);
    journal.append("facts", {{"x", 1}});
    journal.cut("b");
    EXPECT_EQ(std::filesystem::file_size(journal.path()), first);
    EXPECT_EQ(journal.find("b"), nullptr);
    EXPECT_EQ(journal.find("facts"), nullptr);
  }
  Journal journal(target(), kPrint);
  EXPECT_TRUE(same(journal.load(*journal.find("a")), a));
  journal.append("b", {}, &b);
  EXPECT_TRUE(same(journal.load(*journal.find("b")), b));
}

TEST_F(JournalTest, AnotherFingerprintBeginsAnew) {
  { Journal(target(), kPrint).append("a", {}); }
  Journal journal(target(), "fedcba9876543210");
  EXPECT_TRUE(journal.empty());
}

TEST_F(JournalTest, CutAnywhereItKeepsTheRecordsBeforeTheCutAndGoesOn) {
  const EncodedMatrix a = small_matrix(1);
  uint64_t first = 0;
  {
    Journal journal(target(), kPrint);
    journal.append("a", {}, &a);
    first = std::filesystem::file_size(journal.path());
    journal.append("b", {}, &a);
  }
  const std::string whole = std::string(read_file(target() + ".partial"));
  for (size_t length = 0; length <= whole.size(); length += length < 40 || length + 40 > whole.size() ? 1 : 13) {
    write_file(target() + ".partial", whole.substr(0, length));
    Journal journal(target(), kPrint);
    EXPECT_EQ(journal.find("a") != nullptr, length >= first) << length;
    EXPECT_EQ(journal.find("b") != nullptr, length == whole.size()) << length;
    journal.append("c", {}, &a);
    EXPECT_TRUE(same(journal.load(*journal.find("c")), a));
  }
}

TEST_F(JournalTest, AFlippedByteEndsItThere) {
  const EncodedMatrix a = small_matrix(1);
  {
    Journal journal(target(), kPrint);
    journal.append("a", {}, &a);
  }
  const std::string whole = std::string(read_file(target() + ".partial"));
  for (size_t at = 0; at < whole.size(); at += at < 300 ? 1 : 17) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ 0x41);
    write_file(target() + ".partial", changed);
    EXPECT_TRUE(Journal(target(), kPrint).empty()) << at;
  }
}

TEST_F(JournalTest, OneProcessAtATime) {
  Journal journal(target(), kPrint);
  const auto message = error_of([&] { Journal(target(), kPrint); });
  EXPECT_THAT(message.value_or(""), HasSubstr("in use"));
}

TEST_F(JournalTest, RemovingLeavesNothing) {
  Journal journal(target(), kPrint);
  journal.append("a", {});
  journal.remove();
  EXPECT_FALSE(std::filesystem::exists(journal.path()));
}

TEST_F(JournalTest, AFolderThatIsNotThereIsNamed) {
  ErrorCode code{};
  const auto message = error_of([&] { Journal(path("absent/model.upg"), kPrint); }, &code);
  EXPECT_EQ(code, ErrorCode::kIo);
  EXPECT_THAT(message.value_or(""), HasSubstr("absent"));
}

}  // namespace
}  // namespace upg
