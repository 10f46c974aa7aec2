// What well-formed pickles of every protocol mean. The bytes are those that Python's pickletools prints.
#include "pickle/machine.h"

#include <vector>

#include "pickle/test_util.h"

namespace upg::pickle {
namespace {

using namespace testing_util;
using ::testing::HasSubstr;

// Keeps the bytes that the tree shows.
struct Read {
  explicit Read(std::string pickle, const ReadOptions& options = {})
      : bytes(std::move(pickle)), tree(read_pickle(as_bytes(bytes), "old.upg", options)) {}
  const Value& top() const { return tree.top(); }
  const Value& item(size_t i) const { return tree[tree.top().items.at(i)]; }
  std::string bytes;
  Tree tree;
};

TEST(Machine, ReadsNumbersOfEveryNotation) {
  struct Case {
    std::string pickle;
    int64_t number;
  };
  for (const auto& [pickle, number] :
       {Case{"I-12\n.", -12}, Case{"L123L\n.", 123}, Case{"L123\n.", 123}, Case{"K\xff.", 255}, Case{"M\x01\x02.", 513},
        Case{"J\xfe\xff\xff\xff.", -2}, Case{"\x8a\x00."s, 0}, Case{"\x8a\x01\x80.", -128},
        Case{"\x8a\x02\x80\x00."s, 128}, Case{"\x8b\x01\x00\x00\x00\x07."s, 7},
        Case{"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f.", INT64_MAX}}) {
    const Read read(pickle);
    EXPECT_EQ(read.top().kind, Kind::kInt) << pickle;
    EXPECT_EQ(read.top().number, number) << pickle;
  }
  EXPECT_EQ(Read("I01\n.").top().kind, Kind::kBool);
  EXPECT_EQ(Read("\x88.").top().number, 1);
  EXPECT_EQ(Read("I00\n.").top().number, 0);
  EXPECT_EQ(Read("F-0.25\n.").top().real, -0.25);
  EXPECT_EQ(Read("G\x3f\xf8\x00\x00\x00\x00\x00\x00."s).top().real, 1.5);
  EXPECT_EQ(Read("\x8a\x0a" + std::string(10, '\x11') + ".").top().kind, Kind::kBigInt);
}

TEST(Machine, ReadsTextsAndBytesOfEveryNotation) {
  struct Case {
    std::string pickle;
    Kind kind;
    std::string bytes;
  };
  for (const auto& [pickle, kind, bytes] :
       {Case{"S'a\\x00\\n\\'\"'\n.", Kind::kString, "a\0\n'\""s}, Case{"S\"it's\"\n.", Kind::kString, "it's"},
        Case{"T\x02\x00\x00\x00hi."s, Kind::kString, "hi"}, Case{"U\x02hi.", Kind::kString, "hi"},
        Case{"Va\\u0394\xe9\\U0001f600\n.", Kind::kText, "a\xce\x94\xc3\xa9\xf0\x9f\x98\x80"},
        Case{"X\x02\x00\x00\x00hi."s, Kind::kText, "hi"}, Case{"\x8c\x02hi.", Kind::kText, "hi"},
        Case{"\x8d" + le(uint64_t{2}) + "hi.", Kind::kText, "hi"}, Case{"B\x02\x00\x00\x00hi."s, Kind::kBytes, "hi"},
        Case{"C\x02hi.", Kind::kBytes, "hi"}, Case{"\x8e" + le(uint64_t{2}) + "hi.", Kind::kBytes, "hi"},
        Case{"\x96" + le(uint64_t{2}) + "hi.", Kind::kBytes, "hi"},
        Case{"c_codecs\nencode\n(V\xff\\u0000\nVlatin1\ntR.", Kind::kBytes, "\xff\0"s},
        Case{"c__builtin__\nbytes\n)R.", Kind::kBytes, ""},
        Case{"cbuiltins\nbytearray\nC\x02hi\x85R.", Kind::kBytes, "hi"}}) {
    const Read read(pickle);
    EXPECT_EQ(read.top().kind, kind) << pickle;
    EXPECT_EQ(read.top().bytes, bytes) << pickle;
  }
}

TEST(Machine, ReadsContainersOfEveryProtocol) {
  for (const std::string& pickle :
       std::vector<std::string>{"(lp0\nI1\naI2\na.", "]q\x00(K\x01K\x02"s + "e.", "(K\x01K\x02l.", "(I1\nI2\nt.",
                                "K\x01K\x02\x86.", "\x80\x04\x8f\x94(K\x01K\x02\x90.", "(K\x01K\x02\x91."}) {
    const Read read(pickle);
    ASSERT_EQ(read.top().items.size(), 2u) << pickle;
    EXPECT_EQ(read.item(1).number, 2) << pickle;
  }
  for (const std::string& pickle :
       std::vector<std::string>{"(dp0\nS'a'\nI7\ns.", "}(\x8c\x01"s + "aK\x07u.", "(\x8c\x01"s + "aK\x07" + "d.",
                                "ccollections\nOrderedDict\n)R(\x8c\x01"s + "aK\x07u.",
                                "ccollections\nOrderedDict\n(](\x8c\x01"s + "aK\x07\x86" + "etR."}) {
    const Read read(pickle);
    ASSERT_NE(read.tree.find(read.top(), "a"), nullptr) << pickle;
    EXPECT_EQ(read.tree.find(read.top(), "a")->number, 7) << pickle;
  }
}

TEST(Machine, TheMemoSharesValues) {
  for (const std::string& pickle :
       std::vector<std::string>{"(I5\np3\ng3\nt.", "(K\x05q\x03h\x03t.", "(K\x05r\x03\x00\x00\x00j\x03\x00\x00\x00t."s,
                                "(K\x05\x94h\x00t."s, "(K\x05"s + "2t."}) {
    const Read read(pickle);
    ASSERT_EQ(read.top().items.size(), 2u) << pickle;
    EXPECT_EQ(read.top().items[0], read.top().items[1]) << pickle;
  }
}

TEST(Machine, PopTakesAValueOrAMark) {
  EXPECT_EQ(Read("K\x01K\x02"s + "0.").top().number, 1);
  EXPECT_EQ(Read("K\x01(0.").top().number, 1);
  EXPECT_EQ(Read("K\x01(K\x02K\x03"s + "1.").top().number, 1);
}

TEST(Machine, ClassesOfTheListAreBagsOfAttributes) {
  const std::string state = "}\x8c\x01"s + "aK\x07sb.";
  for (const std::string& pickle :
       {stack_global("__main__", "UPGLayer") + ")\x81" + state, stack_global("__main__", "UPGLayer") + ")}\x92" + state,
        "(i__main__\nUPGLayer\n" + state, "(c__main__\nUPGLayer\no" + state,
        "ccopy_reg\n_reconstructor\n(c__main__\nUPGLayer\nc__builtin__\nobject\nNtR" + state}) {
    const Read read(pickle);
    EXPECT_EQ(read.top().kind, Kind::kObject) << pickle;
    EXPECT_EQ(read.top().global->name, "UPGLayer");
    ASSERT_NE(read.tree.find(read.top(), "a"), nullptr) << pickle;
  }
}

TEST(Machine, CallsAreKeptAsNameAndArguments) {
  const Read read("cnumpy\ndtype\n(U\x02"s + "f4I00\nI01\ntR.");
  EXPECT_EQ(read.top().global->role, Role::kNumpyDtype);
  EXPECT_EQ(read.tree.arg_count(read.top()), 3u);
  EXPECT_EQ(read.tree.arg(read.top(), 0)->bytes, "f4");
  EXPECT_EQ(read.tree.arg(read.top(), 3), nullptr);
}

TEST(Machine, BuffersOutsideThePickleComeInOrder) {
  const std::string first = "one", second = "two";
  const std::span<const std::byte> buffers[] = {as_bytes(first), as_bytes(second)};
  const Read read("\x80\x05\x97\x97\x98\x86."s, {.buffers = buffers});
  EXPECT_EQ(read.item(0).bytes, "one");
  EXPECT_EQ(read.item(1).bytes, "two");
  EXPECT_THAT(refusal("\x97\x97\x97.", nullptr, {.buffers = buffers}),
              HasSubstr("a buffer that lies outside the pickle, at byte 2"));
}

TEST(Machine, PersistentIdsAreTakenWhereTheyAreExpected) {
  const std::string pickle = text("storage") + text("0") + "\x86Q.";
  EXPECT_EQ(Read(pickle, {.persistent_ids = true}).top().kind, Kind::kStorage);
  EXPECT_THAT(refusal(pickle), HasSubstr("refused: a persistent id"));
  EXPECT_THAT(refusal("K\x01Q.", nullptr, {.persistent_ids = true}), HasSubstr("a persistent id that is an int"));
}

TEST(Machine, ReadingEndsAtTheStop) {
  const Read read("K\x01.rest");
  EXPECT_EQ(read.tree.end, 3u);
}

TEST(Machine, AKeyThatIsThereTwiceIsRefusedWhereItMatters) {
  const Read read("}(" + text("a") + "K\x01" + text("a") + "K\x02" + text("b") + "Nu.");
  EXPECT_NE(read.tree.find(read.top(), "b"), nullptr);
  EXPECT_EQ(read.tree.find(read.top(), "c"), nullptr);
  EXPECT_THROW(read.tree.find(read.top(), "a"), Error);
}

}  // namespace
}  // namespace upg::pickle
