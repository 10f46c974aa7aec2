#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <random>

#include "base/checked.h"
#include "base/error.h"
#include "bench/median.h"
#include "codec/codec_table.h"
#include "cuda/kernel_bench.h"
#include "kernels/kernel.h"
#include "ops/linear.h"
#include "upg/bench.h"

namespace upg {
namespace {

constexpr uint64_t kCols = 2048;
constexpr uint64_t kRowsPerThread = 512;      // about 0.4 MB of a trellis a thread: the second-level cache holds it
constexpr uint64_t kMemoryBytes = 256 << 20;  // more than last-level caches
constexpr uint64_t kManyTokens = 128;
constexpr double kLeastSeconds = 0.05;

// A matrix, and copies of it that no cache holds together.
struct Copies {
  Copies(const Codec& codec, uint64_t rows) {
    EncodeOptions options;
    encoded.push_back(codec.encode(
        rows, kCols,
        [](uint64_t row, std::span<float> out) {
          std::mt19937 generator(static_cast<unsigned>(row));
          std::normal_distribution<float> normal;
          for (float& weight : out) weight = normal(generator);
        },
        options));
    bytes = encoded[0].bytes();
    const uint64_t n = std::max<uint64_t>(2, ceil_div(kMemoryBytes, bytes));
    while (encoded.size() < n) encoded.push_back(encoded[0]);
    for (const EncodedMatrix& copy : encoded) matrices.push_back(open_encoded(copy));
  }
  std::vector<EncodedMatrix> encoded;
  std::vector<Matrix> matrices;
  uint64_t bytes = 0;
};

class KernelBench {
 public:
  explicit KernelBench(const BenchOptions& options)
      : options_(options),
        pool_(options.threads),
        rows_(kRowsPerThread * pool_.size()),
        x_(kCols * kManyTokens),
        y_(rows_ * kManyTokens),
        q_(x_.size()),
        scale_(x_.size() / 32),
        offset_(x_.size() / 32) {
    std::mt19937 generator;
    std::normal_distribution<float> normal;
    for (float& x : x_) x = normal(generator);
  }

  std::vector<KernelSpeed> run() {
    uint64_t done = 0;
    for (const Codec* codec : codecs()) {
      const Copies copies(*codec, rows_);
      const std::string variant = std::string(codec->id) + "_" + std::string(codec->activation);
      for (const auto& row : kernels::matmul_kernels()) {
        if (!kernels::variant_matches(row.variant, variant) || !kernels::isa_available(row.isa)) continue;
        for (uint64_t n : {uint64_t{1}, uint64_t{2}, uint64_t{4}, uint64_t{16}, kManyTokens}) {
          if (row.isa == "ref" && n > 1) continue;  // seconds for nothing
          quantize(n);
          time(row.name, copies, n, [&](const Matrix& w, uint64_t begin, uint64_t end) {
            row.run({w.layout.get(),
                     &w,
                     x_.data(),
                     {q_.data(), scale_.data(), offset_.data()},
                     y_.data(),
                     n,
                     rows_,
                     begin,
                     end});
          });
        }
      }
      for (const auto& row : kernels::gemv_kernels()) {
        if (!kernels::variant_matches(row.variant, variant) || !kernels::isa_available(row.isa)) continue;
        time(row.name, copies, 1, [&](const Matrix& w, uint64_t begin, uint64_t end) {
          row.run({w.layout.get(), &w, x_.data(), y_.data(), begin, end});
        });
      }
      for (const auto& row : kernels::unpack_kernels()) {
        if (!kernels::variant_matches(row.variant, codec->id) || !kernels::isa_available(row.isa)) continue;
        time(row.name, copies, 1, [&](const Matrix& w, uint64_t begin, uint64_t end) {
          thread_local std::vector<float> out(16 * kCols);
          for (uint64_t panel = begin / 16; panel < end / 16; ++panel)
            row.run({w.layout.get(), &w, panel, 0, kCols, out.data()});
        });
      }
      if (options_.progress && !options_.progress("kernels", ++done, codecs().size()))
        fail(ErrorCode::kCancelled, "cancelled");
    }
    return std::move(speeds_);
  }

 private:
  using Product = std::function<void(const Matrix& w, uint64_t begin, uint64_t end)>;

  void quantize(uint64_t n) {
    const auto run = kernels::select(kernels::quantize_kernels(), "q8").run;
    for (uint64_t t = 0; t < n; ++t)
      run({x_.data() + t * kCols, kCols, n, q_.data() + 32 * t, scale_.data() + t, offset_.data() + t});
  }

  void time(std::string_view name, const Copies& copies, uint64_t tokens, const Product& product) {
    const auto seconds_each = [&](size_t matrices) {
      std::vector<double> rounds;
      for (unsigned round = 0; round < options_.rounds; ++round) {
        const auto start = std::chrono::steady_clock::now();
        uint64_t times = 0;
        double seconds = 0;
        do {
          for (size_t i = 0; i < copies.matrices.size() && (i == 0 || seconds < 1); ++i, ++times) {
            const Matrix& w = copies.matrices[i % matrices];
            pool_.split(rows_, 16, [&](uint64_t begin, uint64_t end, unsigned) { product(w, begin, end); });
            seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
          }
        } while (seconds < kLeastSeconds);
        rounds.push_back(seconds / static_cast<double>(times));
      }
      return median(rounds);
    };
    const double cache = seconds_each(1), memory = seconds_each(copies.matrices.size());
    const auto weights = static_cast<double>(rows_ * kCols * tokens), bytes = static_cast<double>(copies.bytes);
    speeds_.push_back({std::string(name), tokens, weights / cache, weights / memory, bytes / cache, bytes / memory});
  }

  const BenchOptions& options_;
  ThreadPool pool_;
  uint64_t rows_;
  std::vector<float> x_, y_;
  std::vector<int8_t> q_;
  std::vector<float> scale_;
  std::vector<int32_t> offset_;
  std::vector<KernelSpeed> speeds_;
};

std::vector<KernelSpeed> bench_cuda(const BenchOptions& options) {
  std::vector<KernelSpeed> speeds;
  for (const cuda::KernelTime& k : cuda::time_kernels(options.rounds, options.progress))
    speeds.push_back(
        {k.name, k.vectors, 0, k.weights * static_cast<double>(k.vectors) / k.seconds, 0, k.bytes / k.seconds});
  return speeds;
}

struct Row {
  std::string_view device;
  std::vector<KernelSpeed> (*run)(const BenchOptions& options);
};
constexpr Row kRows[] = {
    {"cpu", [](const BenchOptions& options) { return KernelBench(options).run(); }},
    {"cuda", bench_cuda},
};

}  // namespace

std::vector<KernelSpeed> bench_kernels(const BenchOptions& options) {
  for (const Row& row : kRows)
    if (row.device == options.device) return row.run(options);
  fail(ErrorCode::kInvalidArgument, "no kernels to time on a device \"{}\"", options.device);
}

}  // namespace upg
