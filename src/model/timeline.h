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

  /// Runs `tokens` for the choice of the next one: `out` receives what is asked for, or all logits.
  virtual void forward_candidates(std::span<const int32_t> tokens, const CandidateRequest& request, Candidates& out) {
    forward(tokens, {tokens.size() - 1, tokens.size()}, out.make_logits(request.vocab_size));
  }

  /// All logits in place of the candidates that the last pass gave, where no other pass has begun on the device.
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

/// Tokens of one timeline in a pass that it may share with others; as the arguments of Timeline::forward, or, where
/// `candidates` is not null, of Timeline::forward_candidates.
struct Work {
  Timeline* timeline;
  std::span<const int32_t> tokens;
  LogitsRange range{};
  float* logits = nullptr;
  CandidateRequest request{};
  Candidates* candidates = nullptr;

  /// Whose logits are looked at.
  LogitsRange rows() const { return candidates ? LogitsRange{tokens.size() - 1, tokens.size()} : range; }
  /// Where all of them go.
  float* all_logits() const { return candidates ? candidates->make_logits(request.vocab_size) : logits; }
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
    for (const Work& w : work) {
      if (w.candidates && work.size() == 1) {
        w.timeline->forward_candidates(w.tokens, w.request, *w.candidates);
      } else {  // fetch_logits() could not be called after the passes of the others
        w.timeline->forward(w.tokens, w.rows(), w.all_logits());
      }
    }
  }
  /// Bytes a second that its memory gives, measured now.
  virtual double measure_bandwidth() = 0;
  virtual std::string_view bandwidth_kind() const = 0;  // "reads", "copies"
  virtual uint64_t memory_bytes() const = 0;            // in use by this process; 0: not known
  virtual uint64_t blocks_held() const { return 0; }    // of keys and values, by all timelines
  virtual DeviceReport report() const { return {}; }
};

}  // namespace upg
