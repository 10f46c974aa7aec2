#include "cuda/sample_runner.h"

#include <cmath>

namespace upg::cuda {
namespace {

// Of the list for so many tokens: it ends where a bin does.
constexpr uint32_t room_for(uint32_t count) { return count + count / 2 + 256; }
constexpr uint64_t kMostBytes = sizeof(SampleResult) + room_for(SampleRunner::kMostCount) * sizeof(Listed) +
                                SampleRunner::kMostApart * sizeof(float);

// The parts of the results, there or here.
Listed* list_of(uint8_t* results) { return reinterpret_cast<Listed*>(results + sizeof(SampleResult)); }
float* apart_of(uint8_t* results, uint32_t room) { return reinterpret_cast<float*>(list_of(results) + room); }

}  // namespace

SampleRunner::SampleRunner() {
  const char* what = "sampling";
  host_tokens_ = allocate_pinned<int32_t>(kMostApart, what);
  tokens_ = allocate_zeros<int32_t>(kMostApart, what);
  bins_ = allocate_zeros<uint32_t>(2 * kSampleBins, what);
  results_ = allocate_zeros<uint8_t>(kMostBytes, what);
  host_results_ = allocate_pinned<uint8_t>(kMostBytes, what);
}

void SampleRunner::enqueue(const CandidateRequest& request, float* logits, cudaStream_t stream) {
  SampleArgs args{};
  args.logits = logits;
  args.vocab = static_cast<uint32_t>(request.vocab_size);
  args.count = std::min(static_cast<uint32_t>(request.count), args.vocab);
  args.room = room_ = room_for(args.count);
  args.temperature = request.temperature;
  args.tokens = tokens_.get();
  args.apart_count = apart_count_ = static_cast<uint32_t>(request.apart.size());
  args.apart = apart_of(results_.get(), room_);
  args.bins = bins_.get();
  args.result = reinterpret_cast<SampleResult*>(results_.get());
  args.list = list_of(results_.get());
  if (apart_count_ > 0) {
    std::copy(request.apart.begin(), request.apart.end(), host_tokens_.get());
    check(cudaMemcpyAsync(tokens_.get(), host_tokens_.get(), apart_count_ * sizeof(int32_t), cudaMemcpyHostToDevice,
                          stream),
          "sampling");
  }
  check(find_candidates(args, stream), "sampling");
  const uint64_t bytes = sizeof(SampleResult) + room_ * sizeof(Listed) + apart_count_ * sizeof(float);
  check(cudaMemcpyAsync(host_results_.get(), results_.get(), bytes, cudaMemcpyDeviceToHost, stream), "sampling");
}

void SampleRunner::read(Candidates& out) const {
  out.logits.clear();
  out.likeliest.clear();
  out.apart.clear();
  uint8_t* results = host_results_.get();
  for (uint32_t i = 0; i < apart_count_; ++i) out.apart.push_back({host_tokens_[i], apart_of(results, room_)[i]});
  const auto& result = *reinterpret_cast<const SampleResult*>(results);
  out.top = logit_of_key(result.top);
  if (!std::isfinite(out.top)) return;
  for (uint32_t i = 0; i < result.listed; ++i) {
    const Listed& listed = list_of(results)[i];
    out.likeliest.push_back({listed.token, listed.logit});
  }
  out.total = 0;
  for (double sum : result.sums) out.total += sum;
}

}  // namespace upg::cuda
