// Pickles that would run something, read what is not there, or never end: each is refused, by name and byte.
#include "pickle/machine.h"
#include "pickle/test_util.h"

namespace upg::pickle {
namespace {

using namespace testing_util;
using ::testing::HasSubstr;

void expect_refused(const std::string& pickle, const std::string& says) {
  ErrorCode code = ErrorCode::kIo;
  const std::string message = refusal(pickle, &code);
  EXPECT_THAT(message, HasSubstr("refused: " + says)) << pickle;
  EXPECT_EQ(code, ErrorCode::kUnsupported) << message;
}

void expect_broken(const std::string& pickle, const std::string& says) {
  ErrorCode code = ErrorCode::kIo;
  EXPECT_THAT(refusal(pickle, &code), HasSubstr(says)) << pickle.substr(0, 100);
  EXPECT_EQ(code, ErrorCode::kInvalidFile);
}

class Gadgets : public ::testing::TestWithParam<const char*> {};

TEST_P(Gadgets, AreRefusedByNameInEveryNotation) {
  const std::string name = GetParam();
  const size_t dot = name.rfind('.');
  const std::string module = name.substr(0, dot), attribute = name.substr(dot + 1);
  const std::string lines = module + "\n" + attribute + "\n";
  const std::string said = name + " at byte ";
  expect_refused("c" + lines + "(S'id'\ntR.", said + "0.");
  expect_refused(
      "K\x01"
      "0c" +
          lines + ".",
      said + "3.");                                         // only named
  expect_refused("(i" + lines + ".", said + "1.");          // INST, before its arguments are looked at
  expect_refused("(c" + lines + "S'id'\no.", said + "1.");  // OBJ
  expect_refused("\x80\x04" + stack_global(module, attribute) + text("id") + "\x85R.", said);
  expect_refused("\x80\x04" + stack_global(module, attribute) + ")\x81.", said);   // NEWOBJ
  expect_refused("\x80\x04" + stack_global(module, attribute) + ")}\x92.", said);  // NEWOBJ_EX
  expect_refused("\x80\x04" + stack_global(module, attribute) + "}b.", said);      // BUILD
  // The name in pieces that the memo brings together, and after a value that would do.
  expect_refused("\x80\x04" + text(attribute) + "\x94" + text(module) +
                     "\x94"
                     "0"
                     "0h\x01h" +
                     std::string(1, '\0') + "\x93.",
                 said);
  expect_refused(
      "\x80\x02"
      "ccollections\nOrderedDict\n)R0c" +
          lines + ".",
      said);
}

INSTANTIATE_TEST_SUITE_P(
    Families, Gadgets,
    ::testing::Values("os.system", "posix.system", "nt.system", "os.popen", "builtins.eval", "__builtin__.eval",
                      "builtins.exec", "builtins.getattr", "builtins.__import__", "__builtin__.compile",
                      "builtins.open", "builtins.setattr", "subprocess.Popen", "subprocess.check_output", "sys.modules",
                      "pty.spawn", "runpy._run_code", "importlib.import_module", "operator.attrgetter",
                      "functools.partial", "types.FunctionType", "socket.socket", "shutil.rmtree", "webbrowser.open",
                      "pickle.loads", "marshal.loads", "code.InteractiveInterpreter",
                      "numpy.testing._private.utils.runstring", "numpy.load", "numpy.f2py.crackfortran", "torch.load",
                      "torch.hub.load", "torch._inductor.codecache.compile_file", "scipy.sparse._csr.check_shape",
                      "collections.defaultdict", "_codecs.decode", "copy_reg.__newobj__", "upg.os.system",
                      "__main__.anything"));

TEST(Attacks, NamesThatOnlyResembleOneOfTheListAreRefused) {
  expect_refused("cnumpy\ndtype.__init__\n.", "numpy.dtype.__init__ at byte 0");
  expect_refused("cnumpy \ndtype\n.", "numpy\\x20.dtype at byte 0");
  expect_refused("cnumpy\nDtype\n.", "numpy.Dtype");
  expect_refused("cnump\xd1\x83\ndtype\n.", "nump\\xd1\\x83.dtype");  // a Cyrillic letter
  expect_refused("\x80\x04" + stack_global("numpy\0.core"s, "dtype") + ".", "numpy\\x00.core.dtype");
  expect_refused("c\n\n.", ". at byte 0");
  expect_refused("c" + std::string(5000, 'x') + "\ny\n.", std::string(120, 'x') + "... (5000 bytes).y");
}

TEST(Attacks, NamesThatAreNoTextAreRefused) {
  expect_refused("\x80\x04K\x01K\x02\x93.", "a name that is made of an int at byte 6");
  expect_refused("\x80\x04" + text("os") + "C\x06system\x93.", "a name that is made of bytes");
  expect_refused("\x80\x04" + text("os") + "]\x93.", "a name that is made of a list");
}

TEST(Attacks, WhatMayBeNamedMayNotBeCalledInOtherWays) {
  expect_refused("cnumpy\nndarray\n(K\x01tR.", "a call of numpy.ndarray");
  expect_refused("cnumpy\nndarray\n)\x81.", "an instance of numpy.ndarray");
  expect_refused("c__builtin__\nobject\n)R.", "a call of __builtin__.object");
  expect_refused("c__main__\nUPGLayer\nK\x01\x85\x81.", "an instance of __main__.UPGLayer with arguments");
  expect_refused("(K\x01i__main__\nUPGLayer\n.", "__main__.UPGLayer called with 1 arguments");
  expect_refused("c__main__\nUPGLayer\n)}" + text("a") + "K\x01s\x92.", "a call with keywords");
  expect_refused("cnumpy\ndtype\nK\x01R.", "a call with an int in place of a tuple");
  expect_refused("c_codecs\nencode\n(V\xe9\nVrot13\ntR.", "_codecs.encode called with 2 arguments of other types");
  expect_refused("cbuiltins\nbytes\nK\x7f\x85R.", "builtins.bytes called with 1 arguments");
  expect_refused("cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.", "builtins.bytearray called");
  expect_refused("ccopy_reg\n_reconstructor\n(cnumpy\nndarray\nc__builtin__\nobject\nNtR.",
                 "an instance of numpy.ndarray");
  expect_refused("ccollections\nOrderedDict\n(K\x01tR.", "collections.OrderedDict called with other arguments");
  expect_refused("S'os.system'\n(S'id'\ntR.", "a call of a string");
  expect_refused("]" + text("append") + "\x86)R.", "a call of a tuple");
}

TEST(Attacks, StatesAndItemsGoOnlyWhereTheyBelong) {
  expect_refused("cnumpy\ndtype\n}b.", "a change of numpy.dtype");
  expect_refused("]}b.", "a state for a list");
  expect_refused("}}b.", "a state for a dict");
  expect_refused("c__main__\nUPGLayer\n)\x81}b}b.", "a second state for __main__.UPGLayer");
  expect_refused(
      "cnumpy\ndtype\nK\x01"
      "a.",
      "a class or function is extended as a list");
  expect_refused("c__main__\nUPGLayer\n)\x81K\x01K\x02s.", "an object is extended as a dict");
  expect_refused("](K\x01K\x02u.", "a list is extended as a dict");
  expect_refused(
      ")(K\x01"
      "e.",
      "a tuple is extended as a list");
}

TEST(Attacks, ExtensionCodesPersistentIdsAndForeignBuffersAreRefused) {
  expect_refused("\x80\x02\x82\x07.", "the extension code 7 at byte 2");
  expect_refused("\x80\x02\x83\x07\x01.", "the extension code 263");
  expect_refused("\x80\x02\x84\x07\x00\x00\x7f."s, "the extension code 2130706439");
  expect_refused("Pfile:///etc/passwd\n.", "a persistent id, \"file:///etc/passwd\", at byte 0");
  expect_refused("K\x01Q.", "a persistent id");
  expect_refused("\x80\x05\x97.", "a buffer that lies outside the pickle, at byte 2");
}

TEST(Attacks, LengthsBeyondTheFileAreRefusedBeforeAnythingIsAllocated) {
  const std::string huge = le(uint64_t{0xffffffffffffffff});
  for (const char opcode : {'\x8d', '\x8e', '\x96'})
    expect_broken(opcode + huge + "x.", "18446744073709551615 bytes are announced");
  expect_broken("\x80\x04\x95" + huge + ".", "a frame of 18446744073709551615 bytes");
  expect_broken("\x80\x04\x95" + le(uint64_t{100}) + "N.", "a frame of 100 bytes, of which 2 are left");
  for (const char opcode : {'X', 'B'})
    expect_broken(opcode + le(uint32_t{0xffffffff}) + ".", "4294967295 bytes are announced");
  for (const char opcode : {'T', '\x8b'}) {
    expect_broken(opcode + le(int32_t{-1}) + ".", "a length of -1");
    expect_broken(opcode + le(int32_t{0x7fffffff}) + ".", "2147483647 bytes are announced");
  }
}

TEST(Attacks, TheMemoHasNothingThatWasNotPutThere) {
  for (const std::string& get : {"g0\n."s, "h\x00."s, "j\xff\xff\xff\xff."s, "g99999999999\n."s})
    expect_broken(get, "which was never set");
  expect_broken("g-1\n.", "a memo index that is not a number");
  expect_broken("gx\n.", "a memo index that is not a number");
  expect_broken("Np99999999999\n.", "memo index 99999999999");
  expect_broken("p0\n.", "a value is missing");
  EXPECT_EQ(refusal("Nr\xff\xff\xff\xff"
                    "0j\xff\xff\xff\xff."),
            "")
      << "a high index takes no more room than a low one";
}

TEST(Attacks, TheStackHasNothingBelowItsMarks) {
  for (const std::string& pickle : {"."s, "0."s, "2."s, "a."s, "s."s, "R."s, "b."s, "\x81."s, "\x93."s, "\x85."s,
                                    "\x94."s, "K\x01(a."s, "](K\x01(e(0e."s, "K\x01(\x85."s, "N(."s})
    EXPECT_NE(refusal(pickle), "") << pickle;
  for (const std::string& pickle : {"t."s, "l."s, "d."s, "e."s, "u."s, "1."s, "o."s, "\x90."s, "\x91."s})
    expect_broken(pickle, "a mark is missing");
  expect_broken(
      "(K\x01"
      "d.",
      "a key without value");
  expect_broken("}(K\x01u.", "a key without value");
  expect_broken("(o.", "an instance of nothing");
}

TEST(Attacks, WhatIsNoPickleIsRefusedAtTheFirstByte) {
  expect_broken("", "1 bytes are announced, 0 are left");
  expect_broken("#!/bin/sh\n", "opcode 0x23, which no protocol has, at byte 0");
  expect_broken("\x80\x06N.", "protocol 6");
  expect_broken("I1", "a line without end");
  expect_broken("I1e3\n.", "an integer that is not one");
  expect_broken("L" + std::string(100000, '9') + "L\n.", "an integer that is not one of 64 bits");
  expect_broken("Fone\n.", "a float that is not one");
  expect_broken("S'open\n.", "a string that cannot be read");
  expect_broken("S'\\x4'\n.", "a string that cannot be read");
  expect_broken("V\\ud\n.", "a text that cannot be read");
  expect_broken("V\\Uffffffff\n.", "a text that cannot be read");
  expect_broken("c_codecs\nencode\n(V\\u0394\nVlatin1\ntR.", "Latin-1 text that cannot be read");
}

TEST(Attacks, EveryPrefixOfAPickleIsRefused) {
  const std::string whole = "\x80\x04\x95" + le(uint64_t{60}) + "}(" + text("version") + text("1.0") + text("layers") +
                            "}" + text("a") + "ccollections\nOrderedDict\n)RsuN0.";
  ASSERT_EQ(refusal(whole), "");
  for (size_t size = 0; size < whole.size(); ++size) EXPECT_NE(refusal(whole.substr(0, size)), "") << size;
}

TEST(Attacks, DepthAndCyclesCostNothing) {
  constexpr size_t kDepth = 400'000;
  EXPECT_EQ(refusal(std::string(kDepth, ']') + std::string(kDepth - 1, 'a') + "."), "");
  EXPECT_EQ(refusal(std::string(kDepth, '(') + std::string(kDepth, 't') + "."), "");
  EXPECT_EQ(refusal("N" + std::string(kDepth, '\x85') + "."), "");
  EXPECT_EQ(refusal("]q\x01h\x01"
                    "a."),
            "")
      << "a list that contains itself";
  EXPECT_EQ(refusal("c__main__\nUPGLayer\n)\x81q\x01}" + text("me") + "h\x01sb."), "")
      << "an object that is its own state";
}

TEST(Attacks, SharingIsNotMultiplied) {
  std::string laughs = "]";
  for (int i = 0; i < 200; ++i)
    laughs += "q" + std::string(1, static_cast<char>(i)) + "]h" + std::string(1, static_cast<char>(i)) + "ah" +
              std::string(1, static_cast<char>(i)) + "a";
  EXPECT_EQ(refusal(laughs + "."), "") << "two to the power of 200 values, 600 that are stored";
}

TEST(Attacks, MoreValuesThanAFileOfItsSizeHasAreRefused) {
  expect_broken(std::string(3'000'000, 'N') + ".", "too many values for its size");
  expect_broken(std::string(3'000'000, '(') + ".", "too many values for its size");
  expect_broken("N" + std::string(3'000'000, '2') + ".", "too many values for its size");
  // A list of pairs, made a dict again and again.
  std::string pairs = "](";
  for (int i = 0; i < 10'000; ++i) pairs += ")N\x86"s;
  std::string dicts = "](";
  for (int i = 0; i < 1000; ++i) dicts += "NN\x86";
  dicts += "eq\x01";
  for (int i = 0; i < 2000; ++i) dicts += "0ccollections\nOrderedDict\nh\x01\x85R";
  expect_broken(dicts + ".", "too many values for its size");
}

TEST(Attacks, TextIsNotDecodedOverAndOver) {
  std::string pickle = "X" + le(uint32_t{100'000}) + std::string(100'000, 'x') + "q\x01";
  for (int i = 0; i < 1000; ++i) pickle += "0c_codecs\nencode\nh\x01X\x06\x00\x00\x00latin1\x86R"s;
  expect_broken(pickle + ".", "decodes more text than it holds");
}

}  // namespace
}  // namespace upg::pickle
