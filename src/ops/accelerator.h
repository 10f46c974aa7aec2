// A device that takes the large sums of compression from the CPU: products of many tokens with a model's weights, the
// statistics of what enters them, corrected weights, and the trellis encoder's search.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "codec/trellis_device.h"

namespace upg {

struct Decoder;  // model/decoder.h
class Linear;
class WeightHook;

/// Sums over tokens of what enters one product, on the device: what InputStatistics in compress/calibrator.h are means
/// of.
class DeviceSums {
 public:
  virtual ~DeviceSums() = default;
  /// x and drift [n_tokens, cols].
  virtual void add(const float* x, const float* drift, uint64_t n_tokens) = 0;
  /// stream_drift [tokens of the last add(), stream_rows].
  virtual void add_stream(const float* stream_drift) = 0;
  /// weights [rows, cols] += (input_strength W drift + stream_strength stream) H^-1, where H are the moments with
  /// `damping` times the mean of their diagonal added to it: compress/correction.h. Gives up the drifts.
  virtual void correct(uint64_t rows, float input_strength, float stream_strength, double damping, float* weights) = 0;
  /// The moments, [cols, cols].
  virtual std::vector<float> moments() const = 0;
};

class Accelerator : public TrellisDevice {
 public:
  /// One line for people: the device's name.
  virtual std::string description() const = 0;
  /// The most memory of the device that was in use at once, in bytes.
  virtual uint64_t peak_bytes() const = 0;

  /// y[t] = W x[t], as Linear::apply with float activations: x [n_tokens, cols], y rows y_stride apart. The device
  /// keeps a copy of the weights until it is told to forget them or needs the room.
  virtual void multiply(const Linear& linear, const float* x, uint64_t n_tokens, float* y, uint64_t y_stride) = 0;
  virtual void forget(const Linear& linear) = 0;

  /// Layer `index` of a decoder over one sequence from its beginning, as Model::layer with float activations does it, x
  /// [n_tokens, hidden] in place. Where the hook does not want a product, x is the stream before what that product is
  /// a part of, and nothing after it is computed. False, and nothing done: the device cannot run such layers.
  /// `capacity` of the sequence, for Rotary::of_capacity.
  virtual bool run_layer(const Decoder& decoder, uint64_t index, uint64_t capacity, uint64_t n_tokens, float* x,
                         WeightHook& hook) = 0;

  /// `stream_rows`: the residual stream's width where the product is added to it, else 0. What the sums belong to is
  /// given as Moments::held to factor().
  virtual std::shared_ptr<DeviceSums> sums(uint64_t cols, uint64_t stream_rows) = 0;
};

}  // namespace upg
