// A checkpoint in, one UPG file out.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "upg/error.h"
#include "upg/inspect.h"
#include "upg/progress.h"

namespace upg {

/// A checkpoint directory whose shards are files of their full size that hold their safetensors header and, beyond it,
/// only what was fetched last. compress() takes the shards one by one and each from its header to its end.
class ShardStream {
 public:
  virtual ~ShardStream() = default;
  virtual const std::string& folder() const = 0;
  /// Differs for checkpoints that differ, and is the same when the same one is opened again.
  virtual std::string identity() const = 0;
  /// Puts bytes [begin, end) into the shard's file. `stopped` is asked several times a second; where it says true, and
  /// for all that goes wrong, throws Error.
  virtual void fetch(const std::string& shard, uint64_t begin, uint64_t end, const std::function<bool()>& stopped) = 0;
  /// Gives back the disk space of what was fetched from the shard.
  virtual void release(const std::string& shard) = 0;
  /// All bytes were fetched: throws Error(kInvalidFile) if they are not the shard's.
  virtual void finish(const std::string& shard) = 0;
};

struct CompressOptions {
  // What to aim for; at most one of the three. None: ratio 10. The result never misses it: at least this ratio, at most
  // these bytes or bits.
  std::optional<double> ratio;    // float32 bytes of all parameters over bytes of all weight data in the file
  std::optional<uint64_t> bytes;  // of weight data
  std::optional<double> bits;     // of weight data, per parameter

  std::string codec;     // one codec for every matrix, by id; empty: a mix that meets the aim
  double density = 0.1;  // sparse codecs: share of weights kept
  // The text that the model is run on, to learn which errors matter: a path, "default" for the bundled mixed text, or
  // "none" to round the weights without.
  std::string calibrate = "default";
  uint64_t calibration_tokens = 65536;  // of that text, in windows spread over all of it

  // What does the large sums: "cpu", or "cuda" for the first NVIDIA GPU, from compute capability 8.0 on. The results
  // agree within rounding, not byte for byte.
  std::string device = "cpu";
  // Where the shards of `source`, then stream->folder(), come from as they are read; nullptr: they are there. Every
  // weight is read once, so that calibrate must be "none". The result is the same.
  ShardStream* stream = nullptr;

  unsigned threads = 0;  // 0: one for each physical core the process may use
  Progress progress;
};

struct CompressReport {
  ModelReport model;
  double seconds = 0;
  // The most memory in use at once, in bytes: of the process, pages of mapped files included, and of the device that
  // `device` names for people; 0 and empty on the CPU.
  uint64_t peak_bytes = 0, device_peak_bytes = 0;
  std::string device;
};

/// Compresses the checkpoint directory `source` to the file `target`, which appears only when it is whole. The same
/// input and options give the same bytes on the same device, whatever the number of threads. Throws Error: kInvalidFile
/// for weights that are not finite (naming tensor and position), kInvalidArgument with the largest ratio possible where
/// the aim is out of reach.
CompressReport compress(const std::string& source, const std::string& target, const CompressOptions& options = {});

}  // namespace upg
