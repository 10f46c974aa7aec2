#include "upg/compress.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>

#include "base/atomic_file.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "codec/codec_table.h"
#include "codec/dense.h"
#include "codec/trellis.h"
#include "compress/accelerators.h"
#include "compress/calibration_text.h"
#include "compress/calibrator.h"
#include "compress/correction.h"
#include "compress/journal.h"
#include "compress/plan.h"
#include "compress/sensitivity.h"
#include "format/checkpoint.h"
#include "format/checksum.h"
#include "format/convert.h"
#include "format/upg_writer.h"
#include "model/arch_table.h"
#include "model/weights.h"
#include "text/tokenizer_source.h"

namespace upg {
namespace {

constexpr uint64_t kSensitivitySequences = 4;  // of so many tokens
constexpr uint64_t kSensitivityTokens = 256;
constexpr std::string_view kSensitivityRecord = "(sensitivity)";  // no tensor has such a name

// Of the process so far, in bytes.
uint64_t peak_memory() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
#ifdef __APPLE__
  return static_cast<uint64_t>(usage.ru_maxrss);
#else
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;
#endif
}

bool is_matrix(const TensorView& tensor) { return tensor.shape.size() == 2 && tensor.elements() > 0; }

class Compressor {
 public:
  Compressor(const std::string& source, const std::string& target, const CompressOptions& options)
      : options_(options),
        weights_(source),
        checkpoint_(open_checkpoint(weights_)),
        target_(target),
        context_(options.threads),
        accelerator_(open_accelerator(options.device, context_.pool)) {
    context_.accelerator = accelerator_.get();
  }

  void run() {
    model_ = load_model(weights_);  // an architecture or tensor that could not be run later is refused now
    for (const TensorView& tensor : checkpoint_.tensors()) {
      if (weights_.is_left_out(tensor.name)) continue;
      if (dense_codec(tensor.dtype) == nullptr)
        fail(ErrorCode::kUnsupported, "tensor {} is {}: only BF16, F16 and F32 weights can be compressed", tensor.name,
             dtype_info(tensor.dtype).name);
      parameters_ += tensor.elements();
      if (is_matrix(tensor)) {
        matrices_.push_back(&tensor);
        weights_total_ += tensor.elements();
      } else {
        others_.push_back(&tensor);
        other_bytes_ += tensor.data.size();
      }
    }
    AtomicFile{target_};  // a target that cannot be written is refused before the work
    check_aim();
    if (options_.stream) check_stream();
    if (options_.calibrate != "none" && could_use_moments())
      sequences_ = calibration_sequences(checkpoint_, model_->shape(), options_);
    Journal journal(target_, fingerprint());
    try {
      encode_all(journal);
      write(journal);
    } catch (const Error& error) {
      // What stopped for want of time or space goes on later; what is wrong with the input stays wrong.
      const bool goes_on = error.code() == ErrorCode::kCancelled || error.code() == ErrorCode::kIo ||
                           (options_.stream && error.code() == ErrorCode::kNotFound);  // a token that has run out
      if (!goes_on || journal.empty()) journal.remove();
      throw;
    }
    journal.remove();
  }

  void complete(CompressReport& whole) const {
    if (accelerator_) {
      whole.device = accelerator_->description();
      whole.device_peak_bytes = accelerator_->peak_bytes();
    }
    ModelReport& report = whole.model;
    report.predicted_loss = predicted_loss_;
    report.measured_loss = measured_loss_;
    report.uncalibrated = uncalibrated_;
    for (TensorReport& tensor : report.tensors) {
      const auto loss = predicted_.find(tensor.name);
      if (loss != predicted_.end()) tensor.predicted_loss = loss->second;
    }
  }

 private:
  static const Checkpoint& open_checkpoint(const Weights& weights) {
    if (weights.checkpoint() == nullptr)
      fail(ErrorCode::kInvalidArgument, "{} is already compressed; give the directory of the original checkpoint",
           weights.path());
    return *weights.checkpoint();
  }

  bool could_use_moments() const { return options_.codec.empty() || find_codec(options_.codec).uses_moments; }

  uint64_t matrix_budget() const {
    const uint64_t budget = budget_bytes(options_, parameters_);
    return budget > other_bytes_ ? budget - other_bytes_ : 0;
  }

  // Aims out of reach are refused before anything is measured.
  void check_aim() const {
    if (options_.codec.empty()) plan_matrices(matrices_, {}, matrix_budget(), parameters_, other_bytes_);
  }

  // Of everything that the encoded matrices depend on, to tell whether a journal is of this work.
  std::string fingerprint() const {
    nlohmann::ordered_json json = {{"version", UPG_VERSION},
                                   {"budget", options_.codec.empty() ? budget_bytes(options_, parameters_) : 0},
                                   {"codec", options_.codec},
                                   {"density", options_.density},
                                   {"device", options_.device},
                                   {"sequences", sequences_},
                                   {"config", checksum_hex(std::as_bytes(std::span(checkpoint_.texts().config)))}};
    for (const TensorView& tensor : checkpoint_.tensors())
      json["tensors"].push_back({tensor.name, dtype_info(tensor.dtype).name, tensor.shape});
    if (options_.stream) json["shards"] = options_.stream->identity();
    std::vector<std::filesystem::path> shards;
    for (const auto& entry : std::filesystem::directory_iterator(checkpoint_.dir()))
      if (!options_.stream && entry.path().extension() == ".safetensors") shards.push_back(entry.path());
    std::sort(shards.begin(), shards.end());
    for (const auto& shard : shards)
      json["shards"].push_back({shard.filename().string(), std::filesystem::file_size(shard),
                                std::filesystem::last_write_time(shard).time_since_epoch().count()});
    const std::string text = json.dump();
    return checksum_hex(std::as_bytes(std::span(text)));
  }

  void report(std::string_view stage, uint64_t done, uint64_t total) const {
    if (options_.progress && !options_.progress(stage, done, total))
      fail(ErrorCode::kCancelled, "compression was cancelled; the same command goes on from {}.partial", target_);
  }

  ForEach for_each(std::string_view stage) {
    return [this, stage](uint64_t n, const std::function<void(uint64_t)>& f) {
      context_.pool.each(n, [&](uint64_t i, unsigned worker) {
        if (worker == 0) report(stage, weights_done_, weights_total_);  // an interruption need not wait for the matrix
        f(i);
      });
    };
  }

  void encode_all(Journal& journal) {
    std::map<std::string, double> sensitivity;
    if (sequences_.empty()) {
      plan(sensitivity);
      if (options_.stream) return encode_stream(journal);
      for (const TensorView* matrix : matrices_) encode(*matrix, {}, journal);
      return;
    }
    uint64_t longest = 0;
    for (const auto& sequence : sequences_) longest = std::max<uint64_t>(longest, sequence.size());
    StagedModel staged(*model_, context_, longest,
                       [&](const std::string& name) { release_pages(checkpoint_.find(name)->data); });
    if (options_.codec.empty()) sensitivity = sensitivities(staged, journal);
    plan(sensitivity);

    Calibrator calibrator(staged, context_, sequences_, kHeldOut,
                          [&] { report("calibrating", weights_done_, weights_total_); });
    for (; !calibrator.done(); calibrator.advance()) {
      for (const Linear* linear : calibrator.weights()) {
        const TensorView& matrix = *checkpoint_.find(linear->name());
        if (!calibrated_.insert(matrix.name).second) continue;  // the head is the embedding, done before
        const Journal::Record* done = journal.find(matrix.name);
        if (done) {
          note(matrix, *done);
          calibrator.replace(matrix.name, journal.load(*done));
          continue;
        }
        report(matrix.name, weights_done_, weights_total_);
        const bool measured = plan_.at(matrix.name).codec->uses_moments;
        calibrator.replace(matrix.name,
                           encode(matrix, measured ? calibrator.statistics(*linear) : InputStatistics{}, journal));
      }
    }
    measured_loss_ = calibrator.measured_loss();
    for (const TensorView* matrix : matrices_)  // what the text never used: experts without a token
      if (!calibrated_.contains(matrix->name)) encode(*matrix, {}, journal);
  }

  void check_stream() const {
    if (options_.calibrate != "none")
      fail(ErrorCode::kInvalidArgument,
           "{}: weights that come as they are read are read once, calibration reads them several times: calibrate must "
           "be \"none\"",
           checkpoint_.dir());
    uint64_t bytes = options_.codec.empty() ? budget_bytes(options_, parameters_) : 0, largest = 0;
    for (const TensorView& tensor : checkpoint_.tensors()) largest = std::max<uint64_t>(largest, tensor.data.size());
    std::error_code unknown;
    const auto space = std::filesystem::space(checkpoint_.dir(), unknown);
    bytes += 2 * largest;  // as it comes, and once more while the file is put together
    if (!unknown && space.available < bytes)
      fail(ErrorCode::kIo, "{} needs about {} bytes on its disk, {} are free", target_, bytes, space.available);
  }

  // Shard by shard, in the order of the bytes. A shard counts only when all of it was seen and is right; until then it
  // is read again by whoever goes on, and must be what it was.
  void encode_stream(Journal& journal) {
    std::map<std::string, const TensorView*> wanted;
    uint64_t window = 0;  // as many bytes as the largest tensor has: small ones come together
    for (const TensorView& tensor : checkpoint_.tensors()) window = std::max<uint64_t>(window, tensor.data.size());
    for (const auto* list : {&matrices_, &others_})
      for (const TensorView* tensor : *list) wanted[tensor->name] = tensor;
    for (const SafetensorsFile& shard : checkpoint_.shards()) {
      const std::string file = std::filesystem::path(shard.where()).filename();
      const std::string record = "(shard) " + file;  // no tensor has such a name
      const bool seen = journal.find(record) != nullptr;
      const auto* start = reinterpret_cast<const std::byte*>(shard.header_json().data()) - sizeof(uint64_t);
      const std::vector<TensorView>& views = shard.tensors();
      for (size_t first = 0, end = 0; first < views.size(); first = end) {
        const auto* begin = views[first].data.data();
        for (end = first; end < views.size(); ++end)
          if (end > first && static_cast<uint64_t>(views[end].data.data() - begin) + views[end].data.size() > window)
            break;
        if (!seen) {
          const TensorView& last = views[end - 1];
          const std::string stage = "fetching " + last.name;
          options_.stream->fetch(file, static_cast<uint64_t>(begin - start),
                                 static_cast<uint64_t>(last.data.data() - start) + last.data.size(), [&] {
                                   return options_.progress && !options_.progress(stage, weights_done_, weights_total_);
                                 });
        }
        for (size_t i = first; i < end; ++i) {
          const auto found = wanted.find(views[i].name);
          if (found != wanted.end()) take_streamed(*found->second, seen, journal);
        }
        if (!seen) options_.stream->release(file);
      }
      if (seen) continue;
      options_.stream->finish(file);
      journal.append(record, {});
    }
  }

  void take_streamed(const TensorView& tensor, bool seen, Journal& journal) {
    const std::string record = "(source) " + tensor.name;
    const Journal::Record* before = journal.find(record);
    if (!seen) {
      const std::string now = checksum_hex(tensor.data);
      if (before && before->note != now)
        fail(ErrorCode::kInvalidFile, "tensor {} came with other bytes than the time before; nothing of it is kept",
             tensor.name);
      if (!before) journal.append(record, now);
    }
    if (is_matrix(tensor)) {
      encode(tensor, {}, journal);
    } else if (!journal.find(tensor.name)) {
      EncodedMatrix kept{dense_codec(tensor.dtype), 1, tensor.elements(), {}, 0};
      kept.components.push_back({"", tensor.dtype, tensor.shape, {tensor.data.begin(), tensor.data.end()}});
      journal.append(tensor.name, {}, &kept);
    }
  }

  std::map<std::string, double> sensitivities(StagedModel& staged, Journal& journal) {
    if (const Journal::Record* record = journal.find(std::string(kSensitivityRecord)))
      return record->note.get<std::map<std::string, double>>();
    std::vector<std::vector<int32_t>> some;
    const uint64_t n = std::min<uint64_t>(kSensitivitySequences, sequences_.size());
    for (uint64_t i = 0; i < n; ++i) {
      const auto& sequence = sequences_[i * sequences_.size() / n];
      some.emplace_back(sequence.begin(), sequence.begin() + static_cast<ptrdiff_t>(std::min<uint64_t>(
                                                                 kSensitivityTokens, sequence.size())));
    }
    const auto measured =
        measure_sensitivity(staged, some, for_each("measuring sensitivity"), accelerator_.get(),
                            [&](uint64_t done, uint64_t total) { report("measuring sensitivity", done, total); });
    journal.append(std::string(kSensitivityRecord), measured);
    return measured;
  }

  void plan(const std::map<std::string, double>& sensitivity) {
    if (!options_.codec.empty()) {
      for (const TensorView* matrix : matrices_) plan_[matrix->name] = {&find_codec(options_.codec), 0, std::nullopt};
      return;
    }
    plan_ = plan_matrices(matrices_, sensitivity, matrix_budget(), parameters_, other_bytes_);
    for (const auto& [name, choice] : plan_) {
      if (!choice.predicted_loss) continue;
      predicted_[name] = *choice.predicted_loss;
      predicted_loss_ = predicted_loss_.value_or(0) + *choice.predicted_loss;
    }
  }

  // Encodes a matrix into the journal, unless it is there.
  EncodedMatrix encode(const TensorView& tensor, InputStatistics statistics, Journal& journal) {
    if (const Journal::Record* done = journal.find(tensor.name)) {
      note(tensor, *done);
      return {};
    }
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
    const MatrixPlan& matrix_plan = plan_.at(tensor.name);
    EncodeOptions encode_options;
    encode_options.density = options_.density;
    encode_options.residual_bytes = matrix_plan.residual_bytes;
    encode_options.parallel = for_each(tensor.name);
    encode_options.device = accelerator_.get();
    EncodedMatrix encoded;
    try {
      if (statistics.n_tokens) {
        encode_options.moments = &statistics.moments;
        corrected_weights(rows, cols, source, statistics, encode_options.parallel, corrected_);
        const RowSource from_corrected = [&](uint64_t row, std::span<float> out) {
          std::copy_n(corrected_.data() + row * cols, cols, out.begin());
        };
        encoded = matrix_plan.codec->encode(rows, cols, from_corrected, encode_options);
      } else {
        encoded = matrix_plan.codec->encode(rows, cols, source, encode_options);
      }
    } catch (const Error& error) {  // encoders know rows, not names
      if (std::string_view(error.what()).find(tensor.name) != std::string_view::npos) throw;
      fail(error.code(), "tensor {}: {}", tensor.name, error.what());
    }
    const double error = relative_error(encoded, source);
    release_pages(tensor.data);
    const bool uncalibrated = !sequences_.empty() && matrix_plan.codec->uses_moments && !statistics.n_tokens &&
                              tensor.name != model_->decoder().embedding.name();
    note(tensor, journal.append(tensor.name, {{"relative_error", error}, {"uncalibrated", uncalibrated}}, &encoded));
    return encoded;
  }

  void note(const TensorView& tensor, const Journal::Record& record) {
    if (record.note.value("uncalibrated", false)) uncalibrated_.push_back(tensor.name);
    weights_done_ += tensor.elements();
    report(tensor.name, weights_done_, weights_total_);
  }

  // ||decoded - original|| / ||original||, in an order of summation that does not depend on threads.
  double relative_error(const EncodedMatrix& encoded, const RowSource& source) {
    const Matrix matrix = open_encoded(encoded);
    std::vector<double> noise(encoded.rows), power(encoded.rows);
    context_.pool.split(encoded.rows, 16, [&](uint64_t begin, uint64_t end, unsigned) {
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

  void write(Journal& journal) {
    UpgPlan plan;
    plan.architecture = ConfigReader(checkpoint_.texts().config, checkpoint_.dir()).architecture();
    plan.producer = "upg " UPG_VERSION;
    plan.texts = checkpoint_.texts();
    plan.texts.tokenizer = tokenizer_json(plan.texts, checkpoint_.dir());
    plan.version = "2.0";
    for (const TensorView* matrix : matrices_) {
      const Journal::Record& record = *journal.find(matrix->name);
      const Codec& codec = find_codec(record.codec);
      UpgPlanEntry& entry =
          plan.entries.emplace_back(UpgPlanEntry{matrix->name, record.codec, codec.version, matrix->shape, {}});
      for (const Journal::Part& part : record.parts) entry.parts.push_back({part.suffix, part.dtype, part.shape});
      plan.version = std::max(plan.version, std::string(codec.since));
    }
    for (const TensorView* tensor : others_)
      plan.entries.push_back({tensor->name,
                              std::string(dense_codec(tensor->dtype)->id),
                              1,
                              tensor->shape,
                              {{"", tensor->dtype, tensor->shape}}});
    UpgWriter writer(target_, plan);
    std::vector<const TensorView*> from_journal = matrices_;
    if (options_.stream)
      from_journal.insert(from_journal.end(), others_.begin(), others_.end());
    else
      for (const TensorView* tensor : others_) writer.append(tensor->name, "", tensor->data);
    // From the journal's end to its beginning: a stream has no disk to spare, so that what is written is cut off there.
    std::sort(from_journal.begin(), from_journal.end(), [&](const TensorView* a, const TensorView* b) {
      return journal.find(a->name)->begin > journal.find(b->name)->begin;
    });
    for (const TensorView* tensor : from_journal) {
      copy(tensor->name, journal, writer);
      if (options_.stream) journal.cut(tensor->name);
      report("writing", weights_total_, weights_total_);
    }
    writer.finish();
  }

  static void copy(const std::string& name, const Journal& journal, UpgWriter& writer) {
    const Journal::Record& record = *journal.find(name);
    std::vector<std::byte> buffer;
    for (const Journal::Part& part : record.parts) {
      for (uint64_t done = 0; done < part.bytes; done += buffer.size()) {
        buffer.resize(std::min<uint64_t>(part.bytes - done, 8 << 20));
        journal.read(part.offset + done, buffer);
        writer.append(name, part.suffix, buffer);
      }
    }
    if (record.note.contains("relative_error")) writer.set_relative_error(name, record.note.at("relative_error"));
  }

  const CompressOptions& options_;
  Weights weights_;
  const Checkpoint& checkpoint_;
  std::string target_;
  OpContext context_;
  std::unique_ptr<Accelerator> accelerator_;  // nullptr: none
  std::unique_ptr<Model> model_;
  std::vector<const TensorView*> matrices_, others_;
  std::vector<std::vector<int32_t>> sequences_;  // of calibration text; empty: none
  std::vector<float> corrected_;                 // the matrix at hand
  std::map<std::string, MatrixPlan> plan_;
  std::set<std::string> calibrated_;
  std::map<std::string, double> predicted_;
  std::optional<double> predicted_loss_, measured_loss_;
  std::vector<std::string> uncalibrated_;
  uint64_t parameters_ = 0;
  uint64_t other_bytes_ = 0;
  uint64_t weights_total_ = 0, weights_done_ = 0;
};

}  // namespace

CompressReport compress(const std::string& source, const std::string& target, const CompressOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  if (!(options.density > 0 && options.density <= 1))
    fail(ErrorCode::kInvalidArgument, "density is {}, must be above 0 and at most 1", options.density);
  CompressReport report;
  {
    Compressor compressor(source, target, options);
    compressor.run();
    report.model = inspect(target);
    compressor.complete(report);
  }
  report.peak_bytes = peak_memory();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace upg
