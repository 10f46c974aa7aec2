#include "compress/plan.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "codec/codec_table.h"
#include "codec/dense.h"
#include "codec/int8.h"
#include "codec/trellis.h"
#include "compress/allocate.h"

namespace upg {
namespace {

// Codecs that a mix is made of, and how much each loses: mean squared error on normally distributed weights of power 1,
// measured (docs/quality.md). The dense codec of the matrix's own type, which loses nothing, comes after them.
struct MixCodec {
  const Codec* codec;
  double noise;
};
constexpr double kNoiseAtThreeBits = 0.0187;  // what sensitivities are measured with
const MixCodec kMix[] = {
    {&kTrellis2Codec, 0.0766}, {&kTrellis3Codec, kNoiseAtThreeBits}, {&kTrellis4Codec, 0.0050}, {&kInt8Codec, 0.00013}};

struct Options {
  std::vector<const Codec*> codecs;
  std::vector<Choice> choices;  // of the codecs
};

// Choices in ascending order of bytes, each losing less than the one before.
Options options_of(const TensorView& matrix, double loss_at_three_bits) {
  std::vector<std::pair<const Codec*, Choice>> all;
  auto add = [&](const Codec& codec, double noise) {
    all.push_back(
        {&codec,
         {codec.stored_bytes(matrix.shape[0], matrix.shape[1], 0), loss_at_three_bits * noise / kNoiseAtThreeBits}});
  };
  for (const MixCodec& mix : kMix) add(*mix.codec, mix.noise);
  add(*dense_codec(matrix.dtype), 0);
  std::stable_sort(all.begin(), all.end(),
                   [](const auto& a, const auto& b) { return a.second.bytes < b.second.bytes; });
  Options options;
  for (const auto& [codec, choice] : all) {
    if (!options.choices.empty() && choice.loss >= options.choices.back().loss) continue;
    options.codecs.push_back(codec);
    options.choices.push_back(choice);
  }
  return options;
}

double weights_of(const TensorView& matrix) { return static_cast<double>(matrix.shape[0] * matrix.shape[1]); }

// What a weight of a matrix that was not measured is taken to lose. Where none was measured every weight counts alike.
double median_loss_of_a_weight(std::span<const TensorView* const> matrices,
                               const std::map<std::string, double>& sensitivity) {
  std::vector<double> losses;
  for (const TensorView* matrix : matrices) {
    const auto known = sensitivity.find(matrix->name);
    if (known != sensitivity.end()) losses.push_back(known->second / weights_of(*matrix));
  }
  if (losses.empty()) return 1;
  const auto middle = losses.begin() + static_cast<ptrdiff_t>(losses.size() / 2);
  std::nth_element(losses.begin(), middle, losses.end());
  return *middle;
}

// What no step of a whole matrix could use goes to a residual plane of the matrix that loses most, if it matters.
void spend_rest(std::span<const TensorView* const> matrices, uint64_t left, uint64_t budget,
                std::map<std::string, MatrixPlan>& plan, const std::vector<double>& losses) {
  constexpr uint64_t kFewest = 64;  // entries worth a plane
  if (left <= budget / 1000) return;
  MatrixPlan* best = nullptr;
  double most = 0;
  for (size_t i = 0; i < matrices.size(); ++i) {
    MatrixPlan& mine = plan.at(matrices[i]->name);
    const uint64_t fixed = 8 * matrices[i]->shape[0] + 4;
    if (!mine.codec->uses_moments || losses[i] <= most || fixed + 2 * kFewest > left) continue;
    most = losses[i];
    best = &mine;
  }
  if (best) best->residual_bytes = left;
}

}  // namespace

uint64_t budget_bytes(const CompressOptions& options, uint64_t parameters) {
  const int aims = options.ratio.has_value() + options.bytes.has_value() + options.bits.has_value();
  if (aims > 1) fail(ErrorCode::kInvalidArgument, "give one of ratio, bytes and bits, not {} of them", aims);
  if (options.bytes) return *options.bytes;
  const double n = static_cast<double>(parameters);
  if (options.bits) {
    if (!(*options.bits > 0 && *options.bits <= 64))
      fail(ErrorCode::kInvalidArgument, "bits is {}, must be above 0 and at most 64", *options.bits);
    return static_cast<uint64_t>(std::floor(n * *options.bits / 8));
  }
  const double ratio = options.ratio.value_or(10.0);
  if (!(ratio > 0 && ratio <= 1e6)) fail(ErrorCode::kInvalidArgument, "ratio is {}, must be above 0", ratio);
  return static_cast<uint64_t>(std::floor(4 * n / ratio));
}

std::map<std::string, MatrixPlan> plan_matrices(std::span<const TensorView* const> matrices,
                                                const std::map<std::string, double>& sensitivity, uint64_t budget,
                                                uint64_t parameters, uint64_t other_bytes) {
  std::vector<Options> options;
  std::vector<std::vector<Choice>> choices;
  const double of_weight = median_loss_of_a_weight(matrices, sensitivity);
  for (const TensorView* matrix : matrices) {
    const auto known = sensitivity.find(matrix->name);
    const double loss = known != sensitivity.end() ? known->second : of_weight * weights_of(*matrix);
    choices.push_back(options.emplace_back(options_of(*matrix, loss)).choices);
  }
  uint64_t fewest = 0;
  const auto chosen = allocate(choices, budget, &fewest);
  if (!chosen) {
    const double ratio = 4.0 * static_cast<double>(parameters) / static_cast<double>(fewest + other_bytes);
    fail(
        ErrorCode::kInvalidArgument,
        "{} bytes are asked for, the least possible is {}: the largest ratio for this model is {:.3f} (--ratio {:.2f})",
        budget + other_bytes, fewest + other_bytes, ratio, std::floor(ratio * 100) / 100);
  }
  std::map<std::string, MatrixPlan> plan;
  std::vector<double> losses;
  uint64_t used = 0;
  for (size_t i = 0; i < matrices.size(); ++i) {
    const Choice& choice = choices[i][(*chosen)[i]];
    MatrixPlan& mine = plan[matrices[i]->name];
    mine.codec = options[i].codecs[(*chosen)[i]];
    if (sensitivity.contains(matrices[i]->name)) mine.predicted_loss = choice.loss;
    losses.push_back(choice.loss);
    used += choice.bytes;
  }
  spend_rest(matrices, budget - used, budget, plan, losses);
  return plan;
}

}  // namespace upg
