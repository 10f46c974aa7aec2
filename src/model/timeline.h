// A run of tokens through a model on some device: the keys and values it holds, and the passes that extend it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/model.h"
#include "ops/candidates.h"
#include "upg/progress.h"

namespace upg {

class Timeline {
 public:
  virtual ~Timeline() = default;

  virtual uint64_t capacity() const = 0;  // positions it can hold
  virtual uint64_t length() const = 0;    // positions it holds
  /// Forgets positions from `length` on. Where the keys that going on from there needs are gone, all is forgotten.
  /// Returns the new length, `length` or 0.
  virtual uint64_t set_length(uint64_t length) = 0;
  /// Bytes of keys and values that a token at `position` reads.
  virtual uint64_t bytes_read_at(uint64_t position) const = 0;

  /// Tokens of a prompt that are best processed together.
  virtual uint64_t chunk() const = 0;

  /// Runs `tokens` (valid ids, at least one) at positions length() and on, for which there is room. logits
  /// [range.end - range.begin, vocab_size] receives those of the positions in `range`; may be empty.
  virtual void forward(std::span<const int32_t> tokens, LogitsRange range, float* logits) = 0;

  /// Runs one token for the choice of the next: `out` receives what is asked for, or all logits.
  virtual void forward_candidates(int32_t token, const CandidateRequest& request, Candidates& out) {
    out.logits.resize(request.vocab_size);
    forward(std::span(&token, 1), {0, 1}, out.logits.data());
  }

  /// All logits in place of the candidates that forward_candidates() gave, where no other pass has begun on the device.
  virtual void fetch_logits(Candidates& out) { (void)out; }

  /// Becomes the first `length` positions of `other`, a timeline of the same device and kind: shares their memory where
  /// the device can. Returns false, and holds nothing, where that cannot be done.
  virtual bool copy_from(const Timeline& other, uint64_t length) {
    (void)other, (void)length;
    set_length(0);
    return false;
  }

  /// Runs `tokens` from position 0 on; returns the mean of their final hidden states, after the last norm. Throws
  /// Error(kUnsupported) where the device cannot.
  virtual std::vector<float> mean_hidden(std::span<const int32_t> tokens) = 0;

  /// Adds the blocks of memory that it holds, where the device has blocks.
  virtual void list_blocks(std::set<const void*>& blocks) const { (void)blocks; }

  /// Becomes n positions long, with keys and values that no prompt put there, for measuring.
  virtual void fill(uint64_t n) = 0;
};

/// Tokens of one timeline in a pass that it may share with others; as the arguments of Timeline::forward.
struct Work {
  Timeline* timeline;
  std::span<const int32_t> tokens;
  LogitsRange range;
  float* logits;
};

/// How a device is opened.
struct DeviceOptions {
  std::string_view fusion;             // one of its row in device_table.cc; empty where there are none
  std::optional<uint64_t> gpu_layers;  // the last so many, at least 1, run on the GPU and the others on the CPU
  Progress progress;
};

/// How a device ran the last token.
struct DeviceReport {
  std::string fusion;                    // empty where there is no choice
  uint64_t launches_per_token = 0;       // up to the likeliest next one
  std::optional<uint64_t> gpu_layers{};  // where the CPU has the others
};

/// Where a model runs.
class Device {
 public:
  virtual ~Device() = default;
  virtual std::string description() const = 0;  // "NVIDIA H200"
  virtual std::unique_ptr<Timeline> timeline(uint64_t capacity, const KvType& kv, Activations activations) = 0;
  /// Runs the work of several timelines, none of them twice: together where the device can.
  virtual void forward(std::span<const Work> work) {
    for (const Work& w : work) w.timeline->forward(w.tokens, w.range, w.logits);
  }
  /// Bytes a second that its memory gives, measured now.
  virtual double measure_bandwidth() = 0;
  virtual std::string_view bandwidth_kind() const = 0;  // "reads", "copies"
  virtual uint64_t memory_bytes() const = 0;            // in use by this process; 0: not known
  virtual uint64_t blocks_held() const { return 0; }    // of keys and values, by all timelines
  virtual DeviceReport report() const { return {}; }
};

}  // namespace upg
