// Who comes in, with times and loads that are made up.
#include "engine/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace upg {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

const Admission::Clock::time_point kStart = Admission::Clock::time_point() + 1h;

TEST(Admission, ABurstWaitsInTheQueue) {
  const Admission admission(4, 8, 600s);
  for (uint64_t waiting = 0; waiting < 8; ++waiting)
    EXPECT_FALSE(admission.check({4, waiting, 1000 * waiting}, 10, kStart)) << waiting;
  const auto refusal = admission.check({4, 8, 0}, 10, kStart);
  ASSERT_TRUE(refusal);
  EXPECT_THAT(refusal->reason, HasSubstr("8 requests are waiting"));
  EXPECT_EQ(refusal->retry_after, 1s) << "nothing is known yet";
  EXPECT_FALSE(admission.check({2, 0, 5000}, 10, kStart)) << "places are free, whatever is to be read";
}

TEST(Admission, AQueueThatLastsTooLongRefusesAtOnceAndSaysWhenToComeAgain) {
  Admission admission(4, 64, 30s);
  admission.left(20s);
  EXPECT_FALSE(admission.check({4, 6, 0}, 10, kStart)) << "six have to go before: 30 s";
  const auto refusal = admission.check({4, 7, 0}, 10, kStart);
  ASSERT_TRUE(refusal);
  EXPECT_THAT(refusal->reason, HasSubstr("within 30 s"));
  EXPECT_EQ(refusal->retry_after, 40s) << "eight times 20 s on four places";
  EXPECT_EQ(admission.deadline(kStart), kStart + 30s);
}

TEST(Admission, OnceTheQueueHasOverflowedNothingWaits) {
  Admission admission(4, 2, 600s);
  ASSERT_TRUE(admission.check({4, 2, 0}, 10, kStart));
  admission.refused(kStart);
  EXPECT_TRUE(admission.overloaded(kStart + 1s));
  EXPECT_THAT(admission.check({4, 0, 0}, 100, kStart + 1s).value().reason, HasSubstr("4 places"));
  EXPECT_TRUE(admission.check({2, 2, 0}, 100, kStart + 1s)) << "those that wait already get the places";
  EXPECT_FALSE(admission.check({3, 0, 0}, 100, kStart + 1s));
}

TEST(Admission, UnderOverloadAPromptIsTakenWhereLittleIsReadBeforeIt) {
  Admission admission(4, 0, 600s);
  admission.refused(kStart);
  EXPECT_FALSE(admission.check({1, 0, 25}, 100, kStart));
  EXPECT_THAT(admission.check({1, 0, 26}, 100, kStart).value().reason, HasSubstr("prompts"));
  EXPECT_FALSE(admission.check({1, 0, 26}, 1000, kStart)) << "it takes long anyway";
}

TEST(Admission, OverloadEndsWhenNobodyWasRefusedForAsLongAsARequestTakes) {
  Admission admission(4, 8, 600s);
  admission.refused(kStart);
  EXPECT_TRUE(admission.overloaded(kStart + 1999ms));
  EXPECT_FALSE(admission.overloaded(kStart + 2s));
  admission.left(10s);
  admission.refused(kStart + 2s);
  EXPECT_TRUE(admission.overloaded(kStart + 11s));
  EXPECT_FALSE(admission.check({4, 3, 0}, 10, kStart + 12s)) << "a queue again";
}

TEST(Admission, WithoutAQueueNothingEverWaitsNorForPrompts) {
  const Admission admission(4, 0, 600s);
  EXPECT_FALSE(admission.check({3, 0, 0}, 100, kStart));
  EXPECT_TRUE(admission.check({1, 0, 100}, 100, kStart));
  EXPECT_TRUE(admission.check({4, 0, 0}, 100, kStart));
}

TEST(Admission, WaitsWithoutLimitAreNotAnOverflow) {
  Admission admission(1, UINT64_MAX, std::chrono::seconds::max());
  EXPECT_GT(admission.deadline(kStart), kStart + 1000h);
  admission.left(1e12s);
  EXPECT_FALSE(admission.check({1, 5, 0}, 1, kStart));
  EXPECT_LE(admission.check({1, UINT64_MAX - 1, 0}, 1, kStart).value_or(Admission::Refusal{{}, 1s}).retry_after, 600s);
}

}  // namespace
}  // namespace upg
