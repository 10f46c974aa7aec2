// The list of element types, and views that use it.
#include "base/dtype.h"

#include <gtest/gtest.h>

#include "base/tensor_view.h"

namespace upg {
namespace {

TEST(DType, EveryNameFindsItsOwnRow) {
  for (const DTypeInfo& info : kDTypes) {
    ASSERT_NE(find_dtype(info.name), nullptr) << info.name;
    EXPECT_EQ(find_dtype(info.name)->type, info.type) << info.name;
    EXPECT_EQ(&dtype_info(info.type), find_dtype(info.name)) << info.name;
    EXPECT_TRUE(info.bytes == 1 || info.bytes == 2 || info.bytes == 4 || info.bytes == 8) << info.name;
  }
}

TEST(DType, OtherNamesAreNotFound) {
  for (const char* name : {"", "f32", "F32 ", "F8", "I128", "BF"}) EXPECT_EQ(find_dtype(name), nullptr) << name;
}

TEST(TensorView, CountsElementsAndPrintsItsShape) {
  const std::array<std::byte, 24> bytes{};
  const TensorView view{"w", DType::kF32, {2, 3}, bytes};
  EXPECT_EQ(view.elements(), 6u);
  EXPECT_EQ(shape_string(view.shape), "[2, 3]");
  EXPECT_EQ(shape_string({}), "[]");
}

}  // namespace
}  // namespace upg
