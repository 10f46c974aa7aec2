// Names and numbers that users and hubs give: what is taken, what is refused.
#include <gtest/gtest.h>

#include "hub/digest.h"
#include "hub/listing.h"
#include "hub/model_name.h"
#include "hub/select.h"
#include "hub/transfer.h"

namespace upg::hub {
namespace {

TEST(ModelName, HasAnOrganisationANameAndPerhapsAFileAndARevision) {
  const auto plain = parse_model_name("some.org/Model_1.5-x");
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->id, "some.org/Model_1.5-x");
  EXPECT_EQ(plain->revision, "main");
  const auto full = parse_model_name("a/b/sub/c.upg:refs/pr/7");
  ASSERT_TRUE(full);
  EXPECT_EQ(full->id, "a/b");
  EXPECT_EQ(full->file, "sub/c.upg");
  EXPECT_EQ(full->revision, "refs/pr/7");
}

TEST(ModelName, IsNotAPathAndHidesNone) {
  for (const char* text : {"",       "a",     "/a/b",         "./a",    "../a",     "a/..",     "a/.b",       "a/b/",
                           "a//b",   "a/b/c", "a/b/../c.upg", "a/b:",   "a/b:../x", "a/b:x//y", "a/b:x y",    "a b/c",
                           "a/b\\c", "-a/b",  "a/b-",         "a--b/c", "a/b:c:d",  "a/b:.",    "a/b/c\n.upg"})
    EXPECT_FALSE(parse_model_name(text)) << text;
}

TEST(FileNames, StayInTheirFolder) {
  for (const char* name : {"config.json", "a/b/c.safetensors", "..a", "a..", "a b", "\xc3\xa9"})
    EXPECT_TRUE(is_safe_file_name(name)) << name;
  for (const std::string& name :
       {std::string(), std::string("."), std::string(".."), std::string("../a"), std::string("a/.."),
        std::string("a/../b"), std::string("/a"), std::string("a/"), std::string("a//b"), std::string("a\\b"),
        std::string("a\0b", 3), std::string("a\nb"), std::string(256, 'x'), std::string("a/").append(256, 'x')})
    EXPECT_FALSE(is_safe_file_name(name)) << name;
}

TEST(Urls, EscapeWhatWouldEndAPath) {
  EXPECT_EQ(url_escaped("a b/c?d#e%\xc3\xa9", true), "a%20b/c%3Fd%23e%25%C3%A9");
  EXPECT_EQ(url_escaped("refs/pr/1", false), "refs%2Fpr%2F1");
}

TEST(Messages, ShowNoControlCharacters) {
  EXPECT_EQ(printable("a\x1b[2Jb\n"), "a?[2Jb?");
  EXPECT_EQ(printable("abcdef", 3), "abc...");
}

TEST(ContentRange, IsReadWholeOrNotAtAll) {
  const auto range = parse_content_range("bytes 5-9/10");
  ASSERT_TRUE(range);
  EXPECT_EQ(range->begin, 5U);
  EXPECT_EQ(range->end, 10U);
  EXPECT_EQ(range->total, 10U);
  EXPECT_FALSE(parse_content_range("bytes 0-0/*")->total);
  for (const char* text :
       {"", "bytes", "bytes */10", "bytes 9-5/10", "bytes -5/10", "bytes 5-/10", "bytes 5-9", "5-9/10", "bytes 5-9/",
        "bytes 5-9/x", "bytes 5-18446744073709551615/*", "bytes 5/9-10", "bytes 5-99999999999999999999/*"})
    EXPECT_FALSE(parse_content_range(text)) << text;
}

TEST(Links, OfTheNextPageAreFoundAmongOthers) {
  EXPECT_EQ(next_link("<http://a/1>; rel=\"prev\", <http://a/2?x=1,2>; rel=\"next\""), "http://a/2?x=1,2");
  EXPECT_EQ(next_link("<http://a/2>; rel=next"), "http://a/2");
  for (const char* text : {"", "<", "<>", "next", "<http://a>", "<http://a>; rel=\"last\"", "rel=\"next\" <http://a"})
    EXPECT_EQ(next_link(text), "") << text;
}

TEST(Digests, AreTheHubs) {
  const std::string text = "hello\n";
  Digest git = Digest::git_blob(text.size());
  git.update(std::as_bytes(std::span(text)));
  EXPECT_EQ(git.hex(), "ce013625030ba8dba906f756967f9e9ca394464a");  // git hash-object
  Digest sha = Digest::sha256();
  sha.update(std::as_bytes(std::span(text)).first(2));
  sha.update(std::as_bytes(std::span(text)).subspan(2));
  EXPECT_EQ(sha.hex(), "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03");  // sha256sum
}

std::vector<HubFile> listing(std::initializer_list<const char*> names) {
  std::vector<HubFile> files;
  for (const char* name : names) files.push_back({name, 1, "", false});
  return files;
}

std::vector<std::string> chosen(const Selection& selection) {
  std::vector<std::string> names;
  for (const HubFile& file : selection.files) names.push_back(file.name);
  return names;
}

TEST(Selection, TakesWhatAModelNeedsAndNoOtherWeights) {
  const auto files = listing({"README.md", "config.json", "consolidated.safetensors", "model-1.safetensors",
                              "model.safetensors.index.json", "onnx/model.onnx", "onnx/config.json",
                              "pytorch_model.bin", "tokenizer.json"});
  const Selection selection = select_files(files, *parse_model_name("a/b"), {}, ModelForm::kAny);
  EXPECT_EQ(chosen(selection),
            (std::vector<std::string>{"config.json", "tokenizer.json", "model.safetensors.index.json"}));
  EXPECT_EQ(selection.index, "model.safetensors.index.json");
  const auto shards = shards_of_index(R"({"weight_map": {"x": "model-1.safetensors", "y": "model-1.safetensors"}})",
                                      files, *parse_model_name("a/b"));
  ASSERT_EQ(shards.size(), 1U);
  EXPECT_EQ(shards[0].name, "model-1.safetensors");
}

TEST(Selection, PrefersOneFileOfWeightsAsTheReaderDoes) {
  const Selection selection =
      select_files(listing({"config.json", "model.safetensors", "model.safetensors.index.json"}),
                   *parse_model_name("a/b"), {}, ModelForm::kCheckpoint);
  EXPECT_EQ(chosen(selection), (std::vector<std::string>{"config.json", "model.safetensors"}));
  EXPECT_EQ(selection.index, "");
}

}  // namespace
}  // namespace upg::hub
