// Archives that the reader must not fall for, and arrays of types and orders that it refuses by name. Archives are put
// together here byte by byte; those that Python writes are read by src/convert/convert_test.cc.
#include "pickle/document.h"

#include <zlib.h>

#include "pickle/test_util.h"

namespace upg::pickle {
namespace {

using namespace testing_util;
using ::testing::HasSubstr;

struct Entry {
  std::string name, data;
  uint16_t method = 0;  // 8: `data` is deflated already
  uint64_t size = 0;    // as the directory says; 0: of the data
  uint16_t flags = 0;
  uint32_t crc = 0;  // 0: of the data
};

std::string zip_of(const std::vector<Entry>& entries) {
  std::string file, directory;
  for (const Entry& entry : entries) {
    const auto size = static_cast<uint32_t>(entry.size ? entry.size : entry.data.size());
    const auto crc = entry.crc ? entry.crc
                               : static_cast<uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(entry.data.data()),
                                                             static_cast<uInt>(entry.data.size())));
    const std::string common = le(entry.flags) + le(entry.method) + le(uint32_t{0}) + le(crc) +
                               le(static_cast<uint32_t>(entry.data.size())) + le(size) +
                               le(static_cast<uint16_t>(entry.name.size())) + le(uint16_t{0});
    directory += "PK\1\2" + le(uint16_t{20}) + le(uint16_t{20}) + common;
    directory +=
        std::string(10, '\0') + le(static_cast<uint32_t>(file.size())) + entry.name;  // comment, disk, attributes
    file += "PK\3\4" + le(uint16_t{20}) + common + entry.name + entry.data;
  }
  const auto count = static_cast<uint16_t>(entries.size());
  return file + directory + "PK\5\6" + le(uint32_t{0}) + le(count) + le(count) +
         le(static_cast<uint32_t>(directory.size())) + le(static_cast<uint32_t>(file.size())) + le(uint16_t{0});
}

std::string deflated(const std::string& data) {
  std::string out(compressBound(static_cast<uLong>(data.size())) + 64, '\0');
  z_stream stream{};
  deflateInit2(&stream, 9, Z_DEFLATED, -15, 9, Z_DEFAULT_STRATEGY);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data.data()));
  stream.avail_in = static_cast<uInt>(data.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string document_refusal(const std::string& bytes) {
  try {
    const Document document(as_bytes(bytes), "old.upg");
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was refused";
}

// Reads the top value of a pickle as an array.
std::string array_refusal(const std::string& pickle) {
  try {
    const Document document(as_bytes(pickle), "old.upg");
    document.arrays().array(document.top(), "x");
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was refused";
}

TEST(Document, FindsThePickleInAnArchive) {
  for (const std::vector<Entry>& entries :
       {std::vector<Entry>{{"anything", "K\x07."}},
        std::vector<Entry>{{"readme.txt", "hello"}, {"folder/model.pkl", "K\x07."}},
        std::vector<Entry>{{"a/data.pkl", "K\x07."}, {"a/extra.pkl", "K\x08."}, {"a/data/0", "bytes"}},
        std::vector<Entry>{{"f/", ""}, {"model.upg", "K\x07."}}}) {
    const std::string bytes = zip_of(entries);
    EXPECT_EQ(Document(as_bytes(bytes), "old.upg").top().number, 7);
  }
  const std::string data = "X" + le(uint32_t{100'000}) + std::string(100'000, 'x') + ".";
  const std::string bytes = zip_of({{.name = "m.pkl",
                                     .data = deflated(data),
                                     .method = 8,
                                     .size = data.size(),
                                     .crc = static_cast<uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(data.data()),
                                                                        static_cast<uInt>(data.size())))}});
  EXPECT_LT(bytes.size(), 1000u);
  EXPECT_EQ(Document(as_bytes(bytes), "old.upg").top().bytes.size(), 100'000u);
}

TEST(Document, ArchivesThatLeaveOpenWhichPickleIsMeantAreRefused) {
  EXPECT_THAT(document_refusal(zip_of({{"a.pkl", "N."}, {"b.pkl", "N."}})), HasSubstr("both a.pkl and b.pkl could be"));
  EXPECT_THAT(document_refusal(zip_of({{"a/data.pkl", "N."}, {"b/data.pkl", "N."}})), HasSubstr("both a/data.pkl and"));
  EXPECT_THAT(document_refusal(zip_of({{"a.txt", "N."}, {"b.txt", "N."}})), HasSubstr("without a pickle"));
  EXPECT_THAT(document_refusal(zip_of({})), HasSubstr("old.upg: "));
  EXPECT_THAT(document_refusal(zip_of({{"a.pkl", "N."}, {"a.pkl", "K\x01."}})), HasSubstr("old.upg: "));
}

TEST(Document, NamesThatLeadOutOfTheArchiveAreRefused) {
  for (const std::string name : {"../a.pkl", "/etc/a.pkl", "a/../../b.pkl", "a\\..\\b.pkl", "C:/a.pkl", "a/.."})
    EXPECT_THAT(document_refusal(zip_of({{name, "N."}})), HasSubstr("which leads out of it")) << name;
}

TEST(Document, ArchivesThatGrowTooMuchAreRefused) {
  EXPECT_THAT(document_refusal(zip_of({{.name = "m.pkl", .data = "N.", .method = 8, .size = 100 << 20}})),
              HasSubstr("would grow from 2 to 104857600 bytes"));
  std::vector<Entry> many;  // each within the limit of one, 1.2 GB together
  for (int i = 0; i < 20; ++i) many.push_back({.name = std::to_string(i), .data = "N.", .method = 8, .size = 60 << 20});
  EXPECT_THAT(document_refusal(zip_of(many)), HasSubstr("entry 1 would grow"));
  const std::string bomb = deflated(std::string(16 << 20, '\0'));
  // A directory that lies about the size is found out while reading.
  EXPECT_THAT(document_refusal(zip_of({{.name = "m.pkl", .data = bomb, .method = 8, .size = 1000}})),
              HasSubstr("is damaged"));
  EXPECT_THAT(document_refusal(zip_of({{.name = "m.pkl", .data = "N.", .method = 8, .size = 1 << 20}})),
              HasSubstr("is damaged"));
}

TEST(Document, DamageEncryptionAndOtherMethodsAreRefused) {
  EXPECT_THAT(document_refusal(zip_of({{.name = "m.pkl", .data = "N.", .crc = 1}})), HasSubstr("is damaged"));
  EXPECT_THAT(document_refusal(zip_of({{.name = "m.pkl", .data = "N.", .flags = 1}})), HasSubstr("encrypted"));
  EXPECT_THAT(document_refusal(zip_of({{.name = "m.pkl", .data = "N.", .method = 12}})),
              HasSubstr("packed by method 12"));
  const std::string whole = zip_of({{"a/data.pkl", "N."}, {"a/data/0", "bytes"}});
  for (size_t size = 4; size < whole.size(); ++size)
    EXPECT_THAT(document_refusal(whole.substr(0, size)), HasSubstr("old.upg: ")) << size;
}

TEST(Document, APickleInAnArchiveIsReadAsCarefully) {
  EXPECT_THAT(document_refusal(zip_of({{"a/data.pkl", "cos\nsystem\n(S'id'\ntR."}})),
              HasSubstr("old.upg: a/data.pkl: refused: os.system at byte 0"));
  EXPECT_THAT(document_refusal(zip_of({{"a.pkl", "N.N."}})), HasSubstr("2 bytes follow the pickle"));
  EXPECT_THAT(document_refusal(zip_of({{"a.pkl", "NQ."}})), HasSubstr("refused: a persistent id"));
  EXPECT_THAT(document_refusal(zip_of({{"a/data.pkl", "N."}, {"a/byteorder", "big"}})), HasSubstr("big-endian"));
}

// torch._utils._rebuild_tensor_v2((storage), offset, (2, 3), strides, False, None) over 24 bytes.
std::string tensor(int offset, int stride0, int stride1, const std::string& key = "0") {
  const std::string pickle = "ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + "ctorch\nFloatStorage\n" +
                             text(key) + text("cpu") + "K\x06tQK" + static_cast<char>(offset) + "K\x02K\x03\x86K" +
                             static_cast<char>(stride0) + "K" + static_cast<char>(stride1) + "\x86\x89NtR.";
  return zip_of({{"m/data.pkl", pickle}, {"m/data/0", std::string(24, 'x')}});
}

TEST(Document, TensorsMustLieWithinTheirStorage) {
  const std::string bytes = tensor(0, 3, 1);
  const Document document(as_bytes(bytes), "old.upg");
  const Array array = document.arrays().array(document.top(), "x");
  EXPECT_EQ(array.elements(), 6u);
  EXPECT_FALSE(array.fortran);
  EXPECT_THAT(array_refusal(tensor(1, 3, 1)), HasSubstr("needs 24 bytes from element 1 on, its storage has 24"));
  EXPECT_THAT(array_refusal(tensor(0, 1, 2)), HasSubstr("nothing was refused")) << "a transposed one";
  EXPECT_THAT(array_refusal(tensor(0, 0, 1)), HasSubstr("strides of its own"));
  EXPECT_THAT(array_refusal(tensor(0, 3, 1, "1")), HasSubstr("storage \"1\" is not in the file"));
  EXPECT_THAT(array_refusal(tensor(0, 3, 1, "../data.pkl")), HasSubstr("storage \"../data.pkl\" is not in the file"));
}

// numpy.core.multiarray._reconstruct, then the state (1, shape, dtype, order, data).
std::string numpy_array(const std::string& dtype, const std::string& shape, const std::string& data,
                        const std::string& type = "cnumpy\nndarray\n") {
  return "cnumpy.core.multiarray\n_reconstruct\n(" + type +
         "K\x00\x85"
         "C\x01"
         "btR(K\x01"s +
         shape + dtype + "\x89" + data + "tb.";
}
std::string dtype(const std::string& name, const std::string& order = "<", const std::string& fields = "NNN") {
  return "cnumpy\ndtype\n(" + text(name) + "\x89\x88tR(K\x03" + text(order) + fields +
         "J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"s;
}

TEST(Document, NumpyArraysOfOtherTypesAndShapesAreRefusedByName) {
  const std::string shape = "K\x02\x85", data =
                                             "C\x08"
                                             "12345678";
  EXPECT_EQ(array_refusal(numpy_array(dtype("f4"), shape, data)), "nothing was refused");
  EXPECT_EQ(array_refusal(numpy_array(dtype("i4", ">"), shape, data)), "nothing was refused");
  for (const char* name : {"O8", "V8", "U1", "S4", "c8", "M8", "m8", "f16", "f4,f4", "", "<"})
    EXPECT_THAT(array_refusal(numpy_array(dtype(name), shape, data)), HasSubstr("its dtype is \"" + std::string(name)))
        << name;
  EXPECT_THAT(array_refusal(numpy_array(dtype("f4", "<", "N)N"), shape, data)), HasSubstr("its dtype is structured"));
  EXPECT_THAT(array_refusal(numpy_array(dtype("f4", "?"), shape, data)), HasSubstr("unknown byte order"));
  EXPECT_THAT(array_refusal(numpy_array("N", shape, data)), HasSubstr("None in place of its dtype"));
  EXPECT_THAT(array_refusal(numpy_array(dtype("f4"), "K\x03\x85", data)),
              HasSubstr("has 8 bytes of data, but its shape and type need 12"));
  EXPECT_THAT(array_refusal(numpy_array(dtype("f4"), "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7fK\x04\x86", data)),
              HasSubstr("more elements than 64 bits count"));
  EXPECT_THAT(array_refusal(numpy_array(dtype("f4"), "J\xff\xff\xff\xff\x85", data)), HasSubstr("has the size -1"));
  EXPECT_THAT(array_refusal(numpy_array(dtype("f4"), "N", data)), HasSubstr("None in place of its shape"));
  EXPECT_THAT(array_refusal(numpy_array(dtype("f4"), shape, "]")), HasSubstr("holds a list, not numbers"));
  EXPECT_THAT(array_refusal(numpy_array(dtype("f4"), shape, data, "cnumpy\ndtype\n")),
              HasSubstr("not a plain numpy.ndarray"));
  EXPECT_THAT(array_refusal("cnumpy.core.multiarray\n_reconstruct\n)R."), HasSubstr("pickled without its type"));
  EXPECT_THAT(array_refusal("cnumpy\ndtype\n)R."), HasSubstr("is an object, expected a NumPy array"));
}

TEST(Document, ParametersWithinParametersEnd) {
  std::string nested = "K\x01";
  for (int i = 0; i < 1000; ++i) nested = "ctorch._utils\n_rebuild_parameter\n" + nested + "\x89N\x87R";
  EXPECT_THAT(array_refusal(nested + "."), HasSubstr("is an object, expected"));
}

TEST(Document, AStorageInBytesIsAFileOfTorchSaveAndNothingElse) {
  const auto pickle = [](const std::string& inside) {
    return "ctorch._utils\n_rebuild_tensor_v2\n(ctorch.storage\n_load_from_bytes\nB" +
           le(static_cast<uint32_t>(inside.size())) + inside + "\x85RK\x00K\x01\x85K\x01\x85\x89NtR."s;
  };
  const std::string magic = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
  EXPECT_THAT(array_refusal(pickle("cos\nsystem\n(S'id'\ntR.")), HasSubstr("not one of torch.save"));
  EXPECT_THAT(array_refusal(pickle(magic + "cos\nsystem\n(S'id'\ntR.")), HasSubstr("refused: os.system at byte 0"));
  EXPECT_THAT(array_refusal(pickle(magic + "N.N.N.].")), HasSubstr("its storage is None"));
  EXPECT_THAT(array_refusal(pickle(magic + "N.N.N.(S'0'\nl.")),
              HasSubstr("lists a storage that nothing in it refers to"));
  const std::string storage = "(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nK\x01NtQ.";
  EXPECT_THAT(array_refusal(pickle(magic + "N.N." + storage + "(S'0'\nl." + le(uint64_t{1}) + "1234")),
              HasSubstr("nothing was refused"));
  EXPECT_THAT(array_refusal(pickle(magic + "N.N." + storage + "(S'0'\nl." + le(UINT64_MAX) + "1234")),
              HasSubstr("18446744073709551615 elements"));
  EXPECT_THAT(array_refusal(pickle(magic + "N.N." + storage + "(S'0'\nl.")), HasSubstr("ends before storage 0"));
}

}  // namespace
}  // namespace upg::pickle
