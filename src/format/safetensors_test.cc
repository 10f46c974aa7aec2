// The safetensors reader against hand-made good and bad files, and against a file of the reference implementation.
#include "format/safetensors.h"

#include "base/atomic_file.h"
#include "format/test_util.h"

namespace upg {
namespace {

using ::testing::HasSubstr;
using testing_util::as_bytes;
using testing_util::error_of;
using testing_util::raw_safetensors;

std::string error_for(const std::string& file) {
  const auto message = error_of([&] { SafetensorsFile::from_bytes(as_bytes(file), "x.safetensors"); });
  if (!message) return "accepted";
  EXPECT_THAT(*message, HasSubstr("x.safetensors"));
  return *message;
}

std::string error_for_header(std::string_view header, std::string_view data = {}) {
  return error_for(raw_safetensors(header, data));
}

TEST(Safetensors, FileOfTheReferenceImplementationIsRead) {
  const auto file = SafetensorsFile::open(UPG_SOURCE_DIR "/tests/data/format/reference_writer.safetensors");
  EXPECT_EQ(file.tensors().size(), 5u);
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.metadata().at("note"), "h\xc3\xa9llo");
  const TensorView* w = file.find("w");
  ASSERT_NE(w, nullptr);
  EXPECT_EQ(w->dtype, DType::kF32);
  EXPECT_EQ(w->shape, (std::vector<uint64_t>{2, 3}));
  const std::vector<float> expected = {0.5f, -1.5f, 2.0f, 3.25f, -0.0f, 1e-3f};
  EXPECT_EQ(std::memcmp(w->data.data(), expected.data(), w->data.size()), 0);
  EXPECT_EQ(file.find("n")->shape.size(), 0u);
  EXPECT_EQ(file.find("n")->elements(), 1u);
  EXPECT_EQ(file.find("none")->elements(), 0u);
  EXPECT_EQ(file.find("h")->dtype, DType::kF16);
  EXPECT_EQ(file.find("absent"), nullptr);
}

TEST(Safetensors, ViewsStayValidWhenTheFileObjectMoves) {
  auto file = SafetensorsFile::open(UPG_SOURCE_DIR "/tests/data/format/reference_writer.safetensors");
  const TensorView view = *file.find("odd");
  const SafetensorsFile moved = std::move(file);
  EXPECT_EQ(std::to_integer<int>(view.data[2]), 2);
  EXPECT_EQ(moved.find("odd")->data.data(), view.data.data());
}

TEST(Safetensors, EmptyFileOfNoTensorsIsAccepted) {
  const std::string bytes = raw_safetensors("{}   ");
  const auto file = SafetensorsFile::from_bytes(as_bytes(bytes), "x");
  EXPECT_TRUE(file.tensors().empty());
  EXPECT_EQ(file.header_json(), "{}   ");
  EXPECT_EQ(file.file_bytes(), 13u);
}

TEST(Safetensors, UnalignedDataAreReadAndReportedAsSuch) {
  std::vector<uint64_t> aligned(16);
  const std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[1],)"
                             R"("data_offsets":[1,5]}} )";
  const std::string bytes = raw_safetensors(header, "12345");
  aligned.resize(bytes.size() / 8 + 1);
  std::memcpy(aligned.data(), bytes.data(), bytes.size());
  const auto file = SafetensorsFile::from_bytes(as_bytes(aligned).first(bytes.size()), "x");
  EXPECT_EQ(is_aligned(*file.find("b")), (8 + header.size() + 1) % 4 == 0);
  EXPECT_TRUE(is_aligned(*file.find("a")));
}

TEST(Safetensors, HeaderSizeIsCheckedAgainstFileAndLimit) {
  EXPECT_THAT(error_for(""), HasSubstr("too short"));
  EXPECT_THAT(error_for("1234567"), HasSubstr("too short"));
  std::string bytes = raw_safetensors("{}");
  bytes[0] = 3;
  EXPECT_THAT(error_for(bytes), HasSubstr("truncated"));
  bytes[3] = 0x7f;
  EXPECT_THAT(error_for(bytes), HasSubstr("limit"));
  bytes[7] = '\xff';
  EXPECT_THAT(error_for(bytes), HasSubstr("limit"));
}

TEST(Safetensors, HeaderMustBeAStrictJsonObject) {
  for (const char* header : {"", "[]", " {}", "\xef\xbb\xbf{}", "1"})
    EXPECT_THAT(error_for_header(header), HasSubstr("begin with '{'")) << header;
  for (const char* header : {"{", "{}}", "{} x", "{\"a\":}", "{\"\xff\":1}", "{/**/}", "{\"a\":1e999}"})
    EXPECT_THAT(error_for_header(header), HasSubstr("not valid JSON")) << header;
  EXPECT_THAT(error_for_header(std::string("{}\0{", 4)), HasSubstr("NUL"));
}

TEST(Safetensors, NestingIsBounded) {
  std::string header = "{\"__metadata__\":";
  header.append(1'000'000, '[').append(1'000'000, ']').append("}");
  EXPECT_THAT(error_for_header(header), HasSubstr("deeper than"));
}

TEST(Safetensors, RepeatedNamesAndKeysAreRefused) {
  const std::string entry = R"({"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  EXPECT_THAT(error_for_header("{\"a\":" + entry + ",\"a\":" + entry + "}"), HasSubstr("\"a\" appears twice"));
  EXPECT_THAT(error_for_header("{\"a\":" + entry + ",\"\\u0061\":" + entry + "}"), HasSubstr("\"a\" appears twice"));
  EXPECT_THAT(error_for_header(R"({"__metadata__":{"k":"1","k":"2"}})"), HasSubstr("\"k\" appears twice"));
  EXPECT_THAT(error_for_header(R"({"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}})"),
              HasSubstr("\"dtype\" appears twice"));
}

TEST(Safetensors, MetadataValuesMustBeStrings) {
  EXPECT_THAT(error_for_header(R"({"__metadata__":{"k":1}})"), HasSubstr("\"k\" is not a string"));
  EXPECT_THAT(error_for_header(R"({"__metadata__":[]})"), HasSubstr("not a JSON object"));
}

struct BadTensor {
  const char* entry;
  const char* problem;
};

TEST(Safetensors, EachFieldOfATensorIsChecked) {
  const BadTensor cases[] = {
      {R"([])", "not a JSON object"},
      {R"({"shape":[4],"data_offsets":[0,4]})", "\"dtype\" is missing"},
      {R"({"dtype":"U8","data_offsets":[0,4]})", "\"shape\" is missing"},
      {R"({"dtype":"U8","shape":[4]})", "\"data_offsets\" is missing"},
      {R"({"dtype":8,"shape":[4],"data_offsets":[0,4]})", "\"dtype\" is not a string"},
      {R"({"dtype":"U9","shape":[4],"data_offsets":[0,4]})", "unknown dtype \"U9\""},
      {R"({"dtype":"U8","shape":4,"data_offsets":[0,4]})", "\"shape\" is not an array"},
      {R"({"dtype":"U8","shape":[-4],"data_offsets":[0,4]})", "\"shape\" is not an array"},
      {R"({"dtype":"U8","shape":[4.0],"data_offsets":[0,4]})", "\"shape\" is not an array"},
      {R"({"dtype":"U8","shape":["4"],"data_offsets":[0,4]})", "\"shape\" is not an array"},
      {R"({"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,4]})", "\"shape\" is not an array"},
      {R"({"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,4]})", "overflows"},
      {R"({"dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4]})", "overflows"},
      {R"({"dtype":"U8","shape":[4],"data_offsets":[0]})", "\"data_offsets\" is not"},
      {R"({"dtype":"U8","shape":[4],"data_offsets":[0,4,4]})", "\"data_offsets\" is not"},
      {R"({"dtype":"U8","shape":[4],"data_offsets":[-1,4]})", "\"data_offsets\" is not"},
      {R"({"dtype":"U8","shape":[4],"data_offsets":{"0":4}})", "\"data_offsets\" is not"},
      {R"({"dtype":"U8","shape":[4],"data_offsets":[4,0]})", "end before they begin"},
      {R"({"dtype":"U8","shape":[5],"data_offsets":[0,5]})", "reach beyond"},
      {R"({"dtype":"U8","shape":[4],"data_offsets":[0,18446744073709551615]})", "reach beyond"},
      {R"({"dtype":"U8","shape":[3],"data_offsets":[0,4]})", "takes 3 bytes, but data_offsets give it 4"},
      {R"({"dtype":"F64","shape":[],"data_offsets":[0,4]})", "takes 8 bytes, but data_offsets give it 4"},
  };
  for (const BadTensor& each : cases) {
    const std::string message = error_for_header(fmt::format("{{\"te\\u001bst\":{}}}", each.entry), "1234");
    EXPECT_THAT(message, HasSubstr(each.problem)) << each.entry;
    EXPECT_THAT(message, HasSubstr("tensor \"te"));
    EXPECT_EQ(message.find('\x1b'), std::string::npos) << "names in messages are escaped";
  }
}

TEST(Safetensors, HolesOverlapsAndTrailingBytesAreRefused) {
  const auto two = [](int b0, int e0, int b1, int e1) {
    return fmt::format(R"({{"a":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}},)"
                       R"("b":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}}}})",
                       e0 - b0, b0, e0, e1 - b1, b1, e1);
  };
  EXPECT_EQ(error_for_header(two(0, 2, 2, 4), "1234"), "accepted");
  EXPECT_EQ(error_for_header(two(2, 4, 0, 2), "1234"), "accepted");
  EXPECT_EQ(error_for_header(two(0, 4, 4, 4), "1234"), "accepted");
  EXPECT_THAT(error_for_header(two(0, 3, 2, 4), "1234"), HasSubstr("overlaps"));
  EXPECT_THAT(error_for_header(two(0, 4, 0, 4), "1234"), HasSubstr("overlaps"));
  EXPECT_THAT(error_for_header(two(0, 4, 2, 2), "1234"), HasSubstr("overlaps"));
  EXPECT_THAT(error_for_header(two(0, 1, 2, 4), "1234"), HasSubstr("hole"));
  EXPECT_THAT(error_for_header(two(1, 2, 2, 4), "1234"), HasSubstr("hole"));
  EXPECT_THAT(error_for_header(two(0, 2, 2, 3), "1234"), HasSubstr("1 bytes follow"));
  EXPECT_THAT(error_for_header("{}", "1234"), HasSubstr("4 bytes follow"));
}

TEST(Safetensors, EveryTruncationIsRefused) {
  const std::string whole = read_file(UPG_SOURCE_DIR "/tests/data/format/reference_writer.safetensors");
  for (size_t size = 0; size < whole.size(); ++size) EXPECT_NE(error_for(whole.substr(0, size)), "accepted") << size;
}

TEST(Safetensors, MissingFileIsReportedByName) {
  ErrorCode code{};
  const auto message = error_of([] { SafetensorsFile::open("/nonexistent/a.safetensors"); }, &code);
  ASSERT_TRUE(message);
  EXPECT_EQ(code, ErrorCode::kNotFound);
  EXPECT_THAT(*message, HasSubstr("/nonexistent/a.safetensors"));
}

}  // namespace
}  // namespace upg
