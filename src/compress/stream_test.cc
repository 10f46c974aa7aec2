// Weights that come as they are read: the same file as from a whole checkpoint, going on after interruptions.
#include <fstream>
#include <map>

#include "compress/journal.h"
#include "format/safetensors.h"
#include "model/test_util.h"
#include "upg/compress.h"

namespace upg {
namespace {

using namespace testing_util;
using ::testing::HasSubstr;

// A golden's shards as a stream: zeros but for the header, filled as asked for.
class FolderStream : public ShardStream {
 public:
  FolderStream(const std::string& golden, const std::string& folder) : folder_(folder) {
    std::filesystem::create_directory(folder);
    for (const auto& entry : std::filesystem::directory_iterator(golden)) {
      const std::string name = entry.path().filename();
      const std::string content(read_file(entry.path()));
      if (name == "golden.safetensors") continue;
      if (!name.ends_with(".safetensors")) {
        write_file(folder + "/" + name, content);
        continue;
      }
      shards_[name] = content;
      empty(name);
    }
  }

  const std::string& folder() const override { return folder_; }
  std::string identity() const override { return "a golden"; }
  void fetch(const std::string& shard, uint64_t begin, uint64_t end, const std::function<bool()>& stopped) override {
    if (stopped()) throw Error(ErrorCode::kCancelled, "stopped");
    if (fetches_left == 0) throw Error(ErrorCode::kIo, "the cable is out");
    --fetches_left;
    EXPECT_EQ(begin, at_.contains(shard) ? at_[shard] : header_bytes(shard)) << "in order, without gaps";
    at_[shard] = end;
    ++fetched[shard];
    put(shard, begin, shards_.at(shard).substr(begin, end - begin));
    if (wrong == shard && end > begin) put(shard, begin, "\x01\x3f");
  }
  void release(const std::string& shard) override { empty(shard); }
  void finish(const std::string& shard) override {
    EXPECT_EQ(at_[shard], shards_.at(shard).size());
    if (wrong == shard) throw Error(ErrorCode::kInvalidFile, shard + " has another hash");
  }

  std::map<std::string, int> fetched;
  int fetches_left = 1 << 30;
  std::string wrong;  // a shard whose bytes are others

 private:
  uint64_t header_bytes(const std::string& shard) const {
    return SafetensorsFile::from_bytes(std::as_bytes(std::span(shards_.at(shard))), shard).header_json().size() + 8;
  }
  // In place: the file stays mapped.
  void put(const std::string& shard, uint64_t at, const std::string& data) const {
    std::fstream file(folder_ + "/" + shard, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(at));
    file.write(data.data(), static_cast<std::streamsize>(data.size()));
  }
  void empty(const std::string& shard) const {
    const uint64_t header = header_bytes(shard);
    if (!std::filesystem::exists(folder_ + "/" + shard))
      write_file(folder_ + "/" + shard, std::string(shards_.at(shard).size(), '\0'));
    put(shard, 0, shards_.at(shard).substr(0, header) + std::string(shards_.at(shard).size() - header, '\0'));
  }

  std::string folder_;
  std::map<std::string, std::string> shards_;
  std::map<std::string, uint64_t> at_;
};

class StreamTest : public TemporaryFolderTest {
 protected:
  CompressOptions options(ShardStream* stream, std::optional<double> bits = std::nullopt) {
    CompressOptions o;
    o.calibrate = "none";
    o.threads = 2;
    o.stream = stream;
    o.bits = bits;
    if (!bits) o.codec = "trellis3";
    return o;
  }
  std::string golden() const { return golden_model("sharded_old_config_bf16"); }
  std::string from_disk() {
    compress(golden(), path("disk.upg"), options(nullptr));
    return std::string(read_file(path("disk.upg")));
  }
};

class StreamOfEach : public StreamTest, public ::testing::WithParamInterface<std::string> {};

TEST_P(StreamOfEach, GivesTheBytesOfTheWholeCheckpoint) {
  FolderStream stream(golden_model(GetParam()), path("work"));
  compress(golden_model(GetParam()), path("disk.upg"), options(nullptr, 8.0));
  compress(stream.folder(), path("stream.upg"), options(&stream, 8.0));
  EXPECT_TRUE(read_file(path("disk.upg")) == read_file(path("stream.upg")));
  EXPECT_FALSE(std::filesystem::exists(path("stream.upg.partial")));
}

INSTANTIATE_TEST_SUITE_P(Goldens, StreamOfEach, ::testing::ValuesIn(golden_names()),
                         [](const auto& test) { return test.param; });

TEST_F(StreamTest, ABrokenStreamGoesOnAfterTheLastWholeShard) {
  const std::string expected = from_disk();
  int all = 0, of_first = 0;
  {
    FolderStream stream(golden(), path("count"));
    compress(stream.folder(), path("count.upg"), options(&stream));
    for (const auto& [shard, n] : stream.fetched) all += n;
    of_first = stream.fetched.begin()->second;
  }
  ASSERT_GT(all, 6);
  for (const int stop : {0, of_first - 1, of_first, all / 2, all - 1}) {
    {
      FolderStream stream(golden(), path("work"));
      stream.fetches_left = stop;
      EXPECT_THAT(error_of([&] { compress(stream.folder(), path("out.upg"), options(&stream)); }).value_or("none"),
                  HasSubstr("the cable is out"));
    }
    FolderStream stream(golden(), path("work"));
    compress(stream.folder(), path("out.upg"), options(&stream));
    EXPECT_TRUE(read_file(path("out.upg")) == expected) << stop;
    int again = 0;
    for (const auto& [shard, n] : stream.fetched) again += n;
    EXPECT_EQ(again == all, stop < of_first) << "whole shards are not fetched again: " << stop;
  }
}

TEST_F(StreamTest, NothingIsKeptOfAShardThatIsWrong) {
  FolderStream stream(golden(), path("work"));
  stream.wrong = "model-00003-of-00006.safetensors";
  EXPECT_THAT(error_of([&] { compress(stream.folder(), path("out.upg"), options(&stream)); }).value_or("none"),
              HasSubstr("another hash"));
  EXPECT_FALSE(std::filesystem::exists(path("out.upg")));
  EXPECT_FALSE(std::filesystem::exists(path("out.upg.partial")));
}

// What was encoded of a shard before its end was checked must not be taken for right when the shard is right later.
TEST_F(StreamTest, BytesThatDifferFromThoseOfTheTimeBeforeAreRefused) {
  {
    FolderStream stream(golden(), path("work"));
    stream.wrong = "model-00001-of-00006.safetensors";
    stream.fetches_left = 1;
    EXPECT_TRUE(error_of([&] { compress(stream.folder(), path("out.upg"), options(&stream)); }).has_value());
  }
  FolderStream stream(golden(), path("work"));
  EXPECT_THAT(error_of([&] { compress(stream.folder(), path("out.upg"), options(&stream)); }).value_or("none"),
              HasSubstr("other bytes than the time before"));
  FolderStream third(golden(), path("work"));
  compress(third.folder(), path("out.upg"), options(&third));
  EXPECT_TRUE(read_file(path("out.upg")) == from_disk());
}

TEST_F(StreamTest, CalibrationIsRefused) {
  FolderStream stream(golden(), path("work"));
  CompressOptions o = options(&stream);
  o.calibrate = "default";
  EXPECT_THAT(error_of([&] { compress(stream.folder(), path("out.upg"), o); }).value_or("none"),
              HasSubstr("calibrate must be \"none\""));
  EXPECT_TRUE(stream.fetched.empty());
}

}  // namespace
}  // namespace upg
