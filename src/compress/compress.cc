#include "upg/compress.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <mutex>

#include "base/checked.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "codec/codec_table.h"
#include "codec/dense.h"
#include "compress/allocate.h"
#include "compress/spool.h"
#include "format/checkpoint.h"
#include "format/convert.h"
#include "format/upg_writer.h"
#include "model/arch_table.h"
#include "model/weights.h"

namespace upg {
namespace {

bool is_matrix(const TensorView& tensor) { return tensor.shape.size() == 2 && tensor.elements() > 0; }

// Weight bytes that the options allow; everything that is not a matrix is already in `parameters`.
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

class Compressor {
 public:
  Compressor(const std::string& source, const std::string& target, const CompressOptions& options)
      : options_(options),
        weights_(source),
        checkpoint_(open_checkpoint(weights_)),
        target_(target),
        pool_(options.threads) {}

  void run() {
    load_model(weights_);  // an architecture or tensor that could not be run later is refused now
    for (const TensorView& tensor : checkpoint_.tensors()) {
      if (dense_codec(tensor.dtype) == nullptr)
        fail(ErrorCode::kUnsupported, "tensor {} is {}: only BF16, F16 and F32 weights can be compressed", tensor.name,
             dtype_info(tensor.dtype).name);
      parameters_ += tensor.elements();
      if (is_matrix(tensor)) {
        matrices_.push_back(&tensor);
        weights_total_ += tensor.elements();
      } else {
        other_bytes_ += tensor.data.size();
      }
    }
    const std::vector<const Codec*> codecs = choose_codecs();
    Spool spool(target_);
    std::vector<Stored> stored;
    for (size_t i = 0; i < matrices_.size(); ++i) stored.push_back(encode(*matrices_[i], *codecs[i], spool));
    write(stored, spool);
  }

 private:
  struct Stored {  // a matrix in the spool
    UpgPlanEntry plan;
    std::vector<std::pair<uint64_t, uint64_t>> parts;  // offset and bytes, in plan order
    double relative_error;
  };

  static const Checkpoint& open_checkpoint(const Weights& weights) {
    if (weights.checkpoint() == nullptr)
      fail(ErrorCode::kInvalidArgument, "{} is already compressed; give the directory of the original checkpoint",
           weights.path());
    return *weights.checkpoint();
  }

  std::vector<const Codec*> choose_codecs() const {
    if (!options_.codec.empty()) return std::vector(matrices_.size(), &find_codec(options_.codec));
    const uint64_t budget = budget_bytes(options_, parameters_);
    std::vector<MatrixShape> shapes;
    for (const TensorView* m : matrices_) shapes.push_back({m->name, m->shape[0], m->shape[1]});
    uint64_t fewest = 0;
    const auto chosen = allocate(shapes, budget > other_bytes_ ? budget - other_bytes_ : 0, &fewest);
    if (!chosen) {
      fewest += other_bytes_;
      const double ratio = 4.0 * static_cast<double>(parameters_) / static_cast<double>(fewest);
      fail(ErrorCode::kInvalidArgument,
           "{} bytes are asked for, the least possible is {}: the largest ratio for this model is {:.3f} (--ratio "
           "{:.2f})",
           budget, fewest, ratio, std::floor(ratio * 100) / 100);
    }
    return *chosen;
  }

  void report(std::string_view stage, uint64_t done, uint64_t total) const {
    if (options_.progress && !options_.progress(stage, done, total))
      fail(ErrorCode::kCancelled, "compression was cancelled");
  }

  Stored encode(const TensorView& tensor, const Codec& codec, Spool& spool) {
    report(tensor.name, weights_done_, weights_total_);
    const uint64_t rows = tensor.shape[0];
    const uint64_t cols = tensor.shape[1];
    const RowSource source = [&](uint64_t row, std::span<float> out) {
      read_floats(tensor, row * cols, out);
      for (uint64_t c = 0; c < cols; ++c)
        if (!std::isfinite(out[c]))
          fail(ErrorCode::kInvalidFile, "tensor {} has {} at row {}, column {}: it cannot be compressed", tensor.name,
               out[c], row, c);
    };
    EncodeOptions encode_options;
    encode_options.density = options_.density;
    encode_options.parallel = [&](uint64_t n, const std::function<void(uint64_t)>& f) {
      pool_.each(n, [&](uint64_t i, unsigned worker) {
        if (worker == 0)
          report(tensor.name, weights_done_, weights_total_);  // an interruption need not wait for the tensor
        f(i);
      });
    };
    EncodedMatrix encoded;
    try {
      encoded = codec.encode(rows, cols, source, encode_options);
    } catch (const Error& error) {  // encoders know rows, not names
      if (std::string_view(error.what()).find(tensor.name) != std::string_view::npos) throw;
      fail(error.code(), "tensor {}: {}", tensor.name, error.what());
    }
    Stored stored;
    stored.plan = {tensor.name, std::string(codec.id), codec.version, {rows, cols}, {}};
    stored.relative_error = relative_error(encoded, source);
    for (const EncodedMatrix::Component& part : encoded.components) {
      stored.plan.parts.push_back({part.suffix, part.dtype, part.shape});
      stored.parts.emplace_back(spool.append(part.data), part.data.size());
    }
    weights_done_ += rows * cols;
    report(tensor.name, weights_done_, weights_total_);
    return stored;
  }

  // ||decoded - original|| / ||original||, in an order of summation that does not depend on threads.
  double relative_error(const EncodedMatrix& encoded, const RowSource& source) {
    const Matrix matrix = open_encoded(encoded);
    std::vector<double> noise(encoded.rows), power(encoded.rows);
    pool_.split(encoded.rows, 16, [&](uint64_t begin, uint64_t end, unsigned) {
      std::vector<float> original(encoded.cols), decoded(encoded.cols);
      for (uint64_t row = begin; row < end; ++row) {
        source(row, original);
        matrix.codec->decode_row(matrix, row, decoded.data());
        for (uint64_t c = 0; c < encoded.cols; ++c) {
          const double d = static_cast<double>(decoded[c]) - original[c];
          noise[row] += d * d;
          power[row] += static_cast<double>(original[c]) * original[c];
        }
      }
    });
    double all_noise = 0, all_power = 0;
    for (uint64_t row = 0; row < encoded.rows; ++row) {
      all_noise += noise[row];
      all_power += power[row];
    }
    return all_power > 0 ? std::sqrt(all_noise / all_power) : 0.0;
  }

  void write(std::vector<Stored>& stored, const Spool& spool) {
    UpgPlan plan;
    plan.architecture = ConfigReader(checkpoint_.texts().config, checkpoint_.dir()).architecture();
    plan.producer = "upg " UPG_VERSION;
    plan.texts = checkpoint_.texts();
    plan.version = "2.0";
    for (const Stored& s : stored) {
      plan.entries.push_back(s.plan);
      plan.version = std::max(plan.version, std::string(find_codec(s.plan.codec).since));
    }
    for (const TensorView& tensor : checkpoint_.tensors())
      if (!is_matrix(tensor))
        plan.entries.push_back({tensor.name,
                                std::string(dense_codec(tensor.dtype)->id),
                                1,
                                tensor.shape,
                                {{"", tensor.dtype, tensor.shape}}});
    UpgWriter writer(target_, plan);
    for (const TensorView& tensor : checkpoint_.tensors())
      if (!is_matrix(tensor)) writer.append(tensor.name, "", tensor.data);
    std::vector<std::byte> buffer;
    for (const Stored& s : stored) {
      for (size_t i = 0; i < s.parts.size(); ++i) {
        auto [offset, left] = s.parts[i];
        while (left > 0) {
          buffer.resize(std::min<uint64_t>(left, 8 << 20));
          spool.read(offset, buffer);
          writer.append(s.plan.name, s.plan.parts[i].suffix, buffer);
          offset += buffer.size();
          left -= buffer.size();
        }
      }
      writer.set_relative_error(s.plan.name, s.relative_error);
      report("writing", weights_total_, weights_total_);
    }
    writer.finish();
  }

  const CompressOptions& options_;
  Weights weights_;
  const Checkpoint& checkpoint_;
  std::string target_;
  ThreadPool pool_;
  std::vector<const TensorView*> matrices_;
  uint64_t parameters_ = 0;
  uint64_t other_bytes_ = 0;
  uint64_t weights_total_ = 0, weights_done_ = 0;
};

}  // namespace

CompressReport compress(const std::string& source, const std::string& target, const CompressOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  if (!(options.density > 0 && options.density <= 1))
    fail(ErrorCode::kInvalidArgument, "density is {}, must be above 0 and at most 1", options.density);
  Compressor(source, target, options).run();
  CompressReport report;
  report.model = inspect(target);
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace upg
