// Files that appear complete or not at all, and mapping them.
#include "base/atomic_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <functional>

#include "base/error.h"
#include "base/mapped_file.h"

namespace upg {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class AtomicFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    dir_ = fs::temp_directory_path() / fmt::format("upg_{}_{}", test->name(), ::getpid());
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }

  std::string path(const std::string& name) const { return (dir_ / name).string(); }
  size_t files() const { return static_cast<size_t>(std::distance(fs::directory_iterator(dir_), {})); }

  fs::path dir_;
};

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

ErrorCode code_of(const std::function<void()>& action, std::string* message = nullptr) {
  try {
    action();
  } catch (const Error& error) {
    if (message != nullptr) *message = error.what();
    return error.code();
  }
  ADD_FAILURE() << "no error";
  return ErrorCode::kCancelled;
}

TEST_F(AtomicFileTest, ContentAppearsAtCommitAndReplacesTheOldFile) {
  write_file(path("a"), "old");
  AtomicFile file(path("a"));
  file.write_at(4, bytes("new"));
  file.write_at(0, bytes("very"));
  EXPECT_EQ(read_file(path("a")), "old");
  file.commit();
  EXPECT_EQ(read_file(path("a")), "verynew");
  EXPECT_EQ(files(), 1u);
}

TEST_F(AtomicFileTest, WithoutCommitTheOldFileStaysAndNoTemporaryRemains) {
  write_file(path("a"), "old");
  {
    AtomicFile file(path("a"));
    file.write_at(0, bytes("new"));
    EXPECT_EQ(files(), 2u);
    EXPECT_TRUE(fs::exists(path(fmt::format(".a.tmp.{}", ::getpid()))));
  }
  EXPECT_EQ(read_file(path("a")), "old");
  EXPECT_EQ(files(), 1u);
}

TEST_F(AtomicFileTest, TwoWritersOfOneNameDoNotMix) {
  AtomicFile first(path("a")), second(path("a"));
  first.write_at(0, bytes("first"));
  second.write_at(0, bytes("second"));
  second.commit();
  first.commit();
  EXPECT_EQ(read_file(path("a")), "first");
  EXPECT_EQ(files(), 1u);
}

TEST_F(AtomicFileTest, MovingKeepsOneOwnerOfTheTemporary) {
  AtomicFile first(path("a"));
  AtomicFile second(std::move(first));
  second.write_at(0, bytes("x"));
  second.commit();
  EXPECT_EQ(read_file(path("a")), "x");
}

TEST_F(AtomicFileTest, MissingFolderIsAnIoErrorThatNamesThePathAndReason) {
  std::string message;
  EXPECT_EQ(code_of([&] { AtomicFile file(path("none/a")); }, &message), ErrorCode::kIo);
  EXPECT_THAT(message, HasSubstr(path("none/a")));
  EXPECT_THAT(message, HasSubstr("No such file or directory"));
}

TEST_F(AtomicFileTest, WhenTheSystemRefusesToWriteTheErrorSaysWhyAndTheOldFileStays) {
  write_file(path("a"), "old");
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{4096, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  std::string message;
  const ErrorCode code = code_of([&] { write_file(path("a"), std::string(10'000, 'x')); }, &message);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(code, ErrorCode::kIo);
  EXPECT_THAT(message, HasSubstr(path("a")));
  EXPECT_THAT(message, HasSubstr("File too large"));
  EXPECT_EQ(read_file(path("a")), "old");
  EXPECT_EQ(files(), 1u);
}

TEST_F(AtomicFileTest, FoldersAndSpecialFilesAreNotReplaced) {
  EXPECT_EQ(code_of([&] { AtomicFile file(dir_.string()); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([&] { AtomicFile file(dir_.string() + "/"); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([&] { AtomicFile file("/dev/null"); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([&] { AtomicFile file(""); }), ErrorCode::kInvalidArgument);
}

TEST_F(AtomicFileTest, MappingRefusesWhatIsNotARegularFile) {
  EXPECT_EQ(code_of([&] { MappedFile file(path("none")); }), ErrorCode::kNotFound);
  EXPECT_EQ(code_of([&] { MappedFile file(dir_.string()); }), ErrorCode::kIo);
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  EXPECT_EQ(code_of([&] { MappedFile file(path("pipe")); }), ErrorCode::kIo);
}

TEST_F(AtomicFileTest, AnEmptyFileMapsToNoBytes) {
  write_file(path("empty"), "");
  EXPECT_EQ(MappedFile(path("empty")).bytes().size(), 0u);
  EXPECT_EQ(read_file(path("empty")), "");
}

}  // namespace
}  // namespace upg
