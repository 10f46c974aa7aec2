// Devices and ways to launch are found by name, and what is not there is refused with what is.
#include "engine/device_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace upg {
namespace {

using ::testing::AllOf;
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

TEST(DeviceTable, LayersCanBeLeftToTheCpuWhereADeviceHasTheRest) {
  const DeviceRow& cuda = find_device("cuda");
  const DeviceOptions all = device_options(cuda, {});
  EXPECT_FALSE(all.gpu_layers.has_value());
  EXPECT_EQ(all.fusion, cuda.fusions.back());
  EXPECT_EQ(device_options(cuda, {.fusion = "graph", .gpu_layers = 20}).gpu_layers, 20u);
  EXPECT_EQ(device_options(cuda, {.fusion = "graph", .gpu_layers = 20}).fusion, "graph");
  EXPECT_THAT(refusal([&] { device_options(cuda, {.gpu_layers = 0}); }),
              AllOf(HasSubstr("0 layers on the GPU"), HasSubstr("choose --device cpu")));
  const DeviceRow& cpu = find_device("cpu");
  EXPECT_FALSE(device_options(cpu, {}).gpu_layers.has_value());
  for (uint64_t n : {0, 20})
    EXPECT_THAT(refusal([&] { device_options(cpu, {.gpu_layers = n}); }),
                AllOf(HasSubstr("the cpu device runs all layers itself"), HasSubstr("choose --device cuda")));
}

TEST(DeviceTable, ADeviceWithoutFusionsTakesNone) {
  const DeviceRow& cpu = find_device("cpu");
  EXPECT_EQ(find_fusion(cpu, ""), "");
  EXPECT_THAT(refusal([&] { find_fusion(cpu, "token"); }), HasSubstr("cpu device has no fusions"));
  EXPECT_TRUE(fusion_names("cpu").empty());
}

}  // namespace
}  // namespace upg
