#include "cuda/sample_runner.h"

#include <algorithm>
#include <cmath>

namespace upg::cuda {
namespace {

// Of the list for so many tokens: it ends where a bin does.
constexpr uint32_t room_for(uint32_t count) { return count + count / 2 + 256; }
// A row's results, a multiple of their alignment.
constexpr uint64_t kMostBytes = sizeof(SampleResult) + room_for(SampleRunner::kMostCount) * sizeof(Listed) +
                                SampleRunner::kMostApart * sizeof(float);

static_assert(kMostBytes % alignof(SampleResult) == 0);

// The parts of the results, there or here.
Listed* list_of(uint8_t* results) { return reinterpret_cast<Listed*>(results + sizeof(SampleResult)); }
float* apart_of(uint8_t* results, uint32_t room) { return reinterpret_cast<float*>(list_of(results) + room); }

}  // namespace

SampleRunner::SampleRunner(uint32_t most_rows) {
  const char* what = "sampling";
  host_tokens_ = allocate_pinned<int32_t>(most_rows * kMostApart, what);
  tokens_ = allocate_zeros<int32_t>(most_rows * kMostApart, what);
  bins_ = allocate_zeros<uint32_t>(most_rows * 2 * kSampleBins, what);
  results_ = allocate_zeros<uint8_t>(most_rows * kMostBytes, what);
  host_results_ = allocate_pinned<uint8_t>(most_rows * kMostBytes, what);
}

void SampleRunner::enqueue(std::span<const Row> rows, cudaStream_t stream) {
  std::vector<SampleArgs> all;
  asked_.clear();
  uint64_t bytes = 0;
  for (const auto& [request, logits, out] : rows) {
    const uint64_t i = all.size();
    uint8_t* results = results_.get() + i * kMostBytes;
    SampleArgs args{};
    args.logits = logits;
    args.vocab = static_cast<uint32_t>(request.vocab_size);
    args.count = std::min(static_cast<uint32_t>(request.count), args.vocab);
    args.room = room_for(args.count);
    args.temperature = request.temperature;
    args.tokens = tokens_.get() + i * kMostApart;
    args.apart_count = static_cast<uint32_t>(request.apart.size());
    args.apart = apart_of(results, args.room);
    args.bins = bins_.get() + i * 2 * kSampleBins;
    args.result = reinterpret_cast<SampleResult*>(results);
    args.list = list_of(results);
    if (args.apart_count > 0) {
      int32_t* from = host_tokens_.get() + i * kMostApart;
      std::copy(request.apart.begin(), request.apart.end(), from);
      check(cudaMemcpyAsync(tokens_.get() + i * kMostApart, from, args.apart_count * sizeof(int32_t),
                            cudaMemcpyHostToDevice, stream),
            "sampling");
    }
    all.push_back(args);
    asked_.push_back({args.room, args.apart_count, out});
    bytes =
        std::max<uint64_t>(bytes, sizeof(SampleResult) + args.room * sizeof(Listed) + args.apart_count * sizeof(float));
  }
  if (all.empty()) return;
  check(find_candidates(all.data(), static_cast<uint32_t>(all.size()), stream), "sampling");
  check(cudaMemcpy2DAsync(host_results_.get(), kMostBytes, results_.get(), kMostBytes, bytes, all.size(),
                          cudaMemcpyDeviceToHost, stream),
        "sampling");
}

void SampleRunner::read() const {
  for (uint64_t row = 0; row < asked_.size(); ++row) {
    const Asked& asked = asked_[row];
    Candidates& out = *asked.out;
    out.logits.clear();
    out.likeliest.clear();
    out.apart.clear();
    uint8_t* results = host_results_.get() + row * kMostBytes;
    const int32_t* tokens = host_tokens_.get() + row * kMostApart;
    for (uint32_t i = 0; i < asked.apart_count; ++i) out.apart.push_back({tokens[i], apart_of(results, asked.room)[i]});
    const auto& result = *reinterpret_cast<const SampleResult*>(results);
    out.top = logit_of_key(result.top);
    if (!std::isfinite(out.top)) continue;
    for (uint32_t i = 0; i < result.listed; ++i) {
      const Listed& listed = list_of(results)[i];
      out.likeliest.push_back({listed.token, listed.logit});
    }
    out.total = 0;
    for (double sum : result.sums) out.total += sum;
  }
}

}  // namespace upg::cuda
