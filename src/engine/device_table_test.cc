// Devices and ways to launch are found by name, and what is not there is refused with what is.
#include "engine/device_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace upg {
namespace {

using ::testing::HasSubstr;

template <typename F>
std::string refusal(F f) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    return error.what();
  }
  return "accepted";
}

TEST(DeviceTable, FindsDevicesByNameAndListsThemOtherwise) {
  for (const DeviceRow& row : device_rows()) EXPECT_EQ(&find_device(row.name), &row);
  EXPECT_THAT(refusal([] { find_device("tpu"); }), HasSubstr("\"tpu\"; choose one of: cpu, cuda"));
}

TEST(DeviceTable, TheFastestFusionIsTheDefault) {
  const DeviceRow& cuda = find_device("cuda");
  EXPECT_EQ(find_fusion(cuda, ""), cuda.fusions.back());
  for (std::string_view fusion : fusion_names("cuda")) EXPECT_EQ(find_fusion(cuda, fusion), fusion);
  EXPECT_THAT(refusal([&] { find_fusion(cuda, "half"); }), HasSubstr("none, graph, layer, token"));
}

TEST(DeviceTable, ADeviceWithoutFusionsTakesNone) {
  const DeviceRow& cpu = find_device("cpu");
  EXPECT_EQ(find_fusion(cpu, ""), "");
  EXPECT_THAT(refusal([&] { find_fusion(cpu, "token"); }), HasSubstr("cpu device has no fusions"));
  EXPECT_TRUE(fusion_names("cpu").empty());
}

}  // namespace
}  // namespace upg
