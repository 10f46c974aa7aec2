#include "compress/sensitivity.h"

#include <algorithm>
#include <set>

#include "codec/trellis.h"
#include "compress/divergence.h"

namespace upg {
namespace {

constexpr uint64_t kLossTokens = 64;

}  // namespace

std::map<std::string, double> measure_sensitivity(StagedModel& model,
                                                  const std::vector<std::vector<int32_t>>& sequences,
                                                  const ForEach& parallel, TrellisDevice* device,
                                                  const std::function<void(uint64_t done, uint64_t total)>& tick) {
  const uint64_t hidden = model.shape().hidden_size;
  const uint64_t vocab = model.shape().vocab_size;
  uint64_t total = 0;
  for (uint64_t stage = 0; stage < model.stages(); ++stage) total += model.weights_of(stage).size();

  // The original's stream before the stage in hand, and its logits.
  std::vector<std::vector<float>> streams;
  std::vector<Predictions> reference;
  for (const auto& tokens : sequences) {
    std::vector<float> x(tokens.size() * hidden);
    for (uint64_t stage = 0; stage < model.head(); ++stage) model.run(stage, tokens, x.data());
    std::vector<float> logits(tokens.size() * vocab);
    model.logits(x.data(), tokens.size(), logits.data());
    reference.emplace_back(logits.data(), tokens.size(), vocab);
    streams.emplace_back(tokens.size() * hidden);
  }
  std::map<std::string, double> losses;
  std::set<std::string> done;
  std::vector<float> logits(kLossTokens * vocab);
  for (uint64_t stage = 0; stage < model.stages(); ++stage) {
    for (const Linear* linear : model.weights_of(stage)) {
      if (!done.insert(linear->name()).second) continue;  // the head tied to the embedding
      const Matrix& matrix = linear->matrix();
      EncodeOptions options;
      options.parallel = parallel;
      options.device = device;
      const RowSource source = [&](uint64_t row, std::span<float> out) {
        matrix.codec->decode_row(matrix, row, out.data());
      };
      const EncodedMatrix encoded = kTrellis3Codec.encode(matrix.rows, matrix.cols, source, options);
      model.replace(linear->name(), encoded);
      double sum = 0;
      uint64_t n_tokens = 0;
      for (size_t s = 0; s < sequences.size(); ++s) {
        tick(done.size() - 1, total);
        const auto& tokens = sequences[s];
        std::vector<float> x = streams[s];
        for (uint64_t later = stage; later < model.head(); ++later) model.run(later, tokens, x.data());
        for (uint64_t t = 0; t < tokens.size(); t += kLossTokens) {
          const uint64_t n = std::min<uint64_t>(kLossTokens, tokens.size() - t);
          model.logits(x.data() + t * hidden, n, logits.data());
          sum += reference[s].divergence(t, logits.data(), n);
          n_tokens += n;
        }
      }
      model.restore();
      if (!model.reached(*linear)) continue;  // an expert that no token went to: nothing is known of it
      losses[linear->name()] = n_tokens ? std::max(0.0, sum / static_cast<double>(n_tokens)) : 0.0;
    }
    if (stage < model.head())
      for (size_t s = 0; s < sequences.size(); ++s) model.run(stage, sequences[s], streams[s].data());
  }
  return losses;
}

}  // namespace upg
