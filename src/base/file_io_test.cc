// Reads and writes are whole or say why not.
#include "base/file_io.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <functional>
#include <memory>

#include "base/error.h"

namespace upg {
namespace {

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

class FileIoTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_NE(file_, nullptr); }

  int fd() const { return ::fileno(file_.get()); }

 private:
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_{std::tmpfile(), std::fclose};
};

std::string io_error(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

TEST_F(FileIoTest, WhatIsWrittenAnywhereIsReadBackAndGapsAreZeros) {
  write_all_at(fd(), 6, bytes("behind"), "f");
  write_all_at(fd(), 0, bytes("front"), "f");
  write_all_at(fd(), 3, {}, "f");
  std::string text(12, '?');
  read_all_at(fd(), 0, std::as_writable_bytes(std::span(text)), "f");
  EXPECT_EQ(text, std::string("front\0behind", 12));
}

TEST_F(FileIoTest, AFileThatEndsEarlyIsAnErrorThatSaysHowLongItShouldBe) {
  write_all_at(fd(), 0, bytes("12345"), "f");
  std::string text(4, '?');
  EXPECT_EQ(io_error([&] { read_all_at(fd(), 2, std::as_writable_bytes(std::span(text)), "the file"); }),
            "cannot read the file: it ends before byte 6");
  read_all_at(fd(), 9, {}, "f");  // nothing is always there
}

TEST_F(FileIoTest, WhatTheSystemRefusesIsNamedWithItsReason) {
  std::string text(4, '?');
  EXPECT_EQ(io_error([&] { write_all_at(-1, 0, bytes("x"), "the file"); }),
            "cannot write the file: Bad file descriptor");
  EXPECT_EQ(io_error([&] { read_all_at(-1, 0, std::as_writable_bytes(std::span(text)), "the file"); }),
            "cannot read the file: Bad file descriptor");
}

TEST_F(FileIoTest, AFolderThatCannotBeSyncedIsNoError) {
  EXPECT_NO_THROW(sync_folder("."));
  EXPECT_NO_THROW(sync_folder("/dev/null"));
  EXPECT_NO_THROW(sync_folder("none/such"));
}

}  // namespace
}  // namespace upg
