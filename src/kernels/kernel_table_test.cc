// Choosing kernels: the order of the list, UPG_FORCE_KERNEL, and that no codec is left without what it needs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <set>

#include "codec/codec_table.h"
#include "kernels/kernel.h"
#include "upg/error.h"

namespace upg::kernels {
namespace {

using ::testing::HasSubstr;

class KernelTable : public ::testing::Test {
 protected:
  KernelTable() {
    if (const char* value = std::getenv("UPG_FORCE_KERNEL")) before_ = value;
    unsetenv("UPG_FORCE_KERNEL");
  }
  ~KernelTable() override {
    if (before_) {
      setenv("UPG_FORCE_KERNEL", before_->c_str(), 1);
    } else {
      unsetenv("UPG_FORCE_KERNEL");
    }
  }
  static void force(const char* value) { setenv("UPG_FORCE_KERNEL", value, 1); }
  static std::string refusal() {
    try {
      check_forced_kernels();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      return error.what();
    }
    return "accepted";
  }

 private:
  std::optional<std::string> before_;
};

template <typename Fn>
const Kernel<Fn>* first_runnable(std::span<const Kernel<Fn>> list, std::string_view variant) {
  for (const Kernel<Fn>& row : list)
    if (row.variant == variant && isa_available(row.isa)) return &row;
  return nullptr;
}

// Calls f(list, variant) with the list of products that the codec's activations take.
template <typename F>
void with_products(const Codec& codec, F f) {
  const std::string variant = std::string(codec.id) + "_" + std::string(codec.activation);
  if (codec.activation == "q8") {
    f(matmul_kernels(), variant);
  } else {
    f(gemv_kernels(), variant);
  }
}

TEST_F(KernelTable, EveryCodecHasAProductForItsActivationAndAnUnpack) {
  for (const Codec* codec : codecs()) {
    with_products(*codec, [](auto list, const std::string& variant) { EXPECT_NO_THROW(select(list, variant)); });
    EXPECT_NO_THROW(select(unpack_kernels(), codec->id)) << codec->id;
  }
}

TEST_F(KernelTable, TheFirstRowThatCanRunIsChosen) {
  for (const Codec* codec : codecs()) {
    with_products(*codec, [](auto list, const std::string& variant) {
      const auto* expected = first_runnable(list, variant);
      const auto& chosen = select(list, variant);
      if (expected != nullptr) {
        EXPECT_EQ(&chosen, expected) << variant;
      } else {
        EXPECT_EQ(chosen.isa, "ref") << variant;
      }
    });
  }
  for (const auto& row : attend_kernels())
    EXPECT_EQ(&select(attend_kernels(), row.variant), first_runnable(attend_kernels(), row.variant));
}

TEST_F(KernelTable, AVariantWithoutRowsIsRefused) {
  try {
    select(gemm_kernels(), "f64");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_THAT(error.what(), HasSubstr("\"f64\""));
  }
}

TEST_F(KernelTable, ForcingAnInstructionSetRestrictsEveryVariantThatHasIt) {
  force("ref");
  for (const Codec* codec : codecs()) {
    with_products(*codec, [](auto list, const std::string& variant) { EXPECT_EQ(select(list, variant).isa, "ref"); });
    EXPECT_EQ(select(unpack_kernels(), codec->id).isa, "ref");
  }
  for (const KernelStatus& status : kernel_statuses())
    EXPECT_TRUE(!status.selected || status.name.ends_with("__ref")) << status.name;
}

TEST_F(KernelTable, ForcingAKernelByNameLeavesOtherVariantsAlone) {
  for (const auto& row : attend_kernels()) {
    if (!isa_available(row.isa)) continue;
    unsetenv("UPG_FORCE_KERNEL");
    const auto& usual = select(gemm_kernels(), "f32");
    force(("," + std::string(row.name) + ",").c_str());  // empty names mean nothing
    EXPECT_EQ(&select(attend_kernels(), row.variant), &row);
    EXPECT_EQ(&select(gemm_kernels(), "f32"), &usual);
    EXPECT_EQ(refusal(), "accepted");
  }
}

TEST_F(KernelTable, OfSeveralForcedRowsTheFirstInTheListIsChosen) {
  std::string all = "ref";
  for (const auto& row : gemm_kernels()) all += "," + std::string(row.isa);
  force(all.c_str());
  EXPECT_EQ(select(gemm_kernels(), "f32").isa, first_runnable(gemm_kernels(), "f32")->isa);
}

TEST_F(KernelTable, AnUnknownForcedNameIsRefused) {
  force("ref,gemv_nothing__ref");
  EXPECT_THAT(refusal(), HasSubstr("\"gemv_nothing__ref\""));
  force("axv2");
  EXPECT_THAT(refusal(), HasSubstr("\"axv2\""));
  force("");
  EXPECT_EQ(refusal(), "accepted");
}

TEST_F(KernelTable, NamesAreUniqueAndMadeOfOpVariantAndInstructionSet) {
  std::set<std::string_view> names;
  for (const KernelStatus& status : kernel_statuses()) {
    EXPECT_TRUE(names.insert(status.name).second) << status.name;
    EXPECT_TRUE(status.name.starts_with(std::string(status.op) + "_" + std::string(status.variant) + "__"));
    EXPECT_EQ(status.selected, status.reason.empty()) << status.name;
  }
  EXPECT_FALSE(names.empty());
}

TEST_F(KernelTable, AnUnknownInstructionSetIsNotInTheBuild) {
  std::string why_not;
  EXPECT_TRUE(isa_available("ref", &why_not));
  EXPECT_FALSE(isa_available("abacus", &why_not));
  EXPECT_EQ(why_not, "not in this build");
}

TEST_F(KernelTable, ReferenceRowsAreLastInEveryOp) {
  std::string_view op;
  bool reference_seen = false;
  for (const KernelStatus& status : kernel_statuses()) {
    if (status.op != op) reference_seen = false;
    op = status.op;
    const bool reference = status.name.ends_with("__ref");
    EXPECT_TRUE(reference || !reference_seen) << status.name;
    reference_seen |= reference;
  }
}

}  // namespace
}  // namespace upg::kernels
