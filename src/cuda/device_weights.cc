#include "cuda/device_weights.h"

#include <algorithm>
#include <cstring>

#include "codec/layout/mdcsr.h"
#include "codec/layout/trellis.h"
#include "cuda/level_sums.h"
#include "cuda/pdvm.h"
#include "model/layer_split.h"

namespace upg::cuda {
namespace {

constexpr uint64_t kPieceBytes = uint64_t{64} << 20;  // of a copy

const TrellisView& view_of(const Linear& linear) {
  if (!linear.matrix().codec->id.starts_with("trellis"))
    fail(ErrorCode::kUnsupported, "{} is stored as {}: the cuda device runs trellis codecs; compress the model first",
         linear.name(), linear.matrix().codec->id);
  return *static_cast<const TrellisView*>(linear.matrix().layout.get());
}

uint64_t code_bytes(const TrellisView& v) { return v.panels * v.blocks * v.bits * 64; }
uint64_t data_bytes(const TrellisView& v) { return v.panels * ((v.blocks + 7) / 8) * step_bytes(v.bits); }
// The file's form, in which a matrix comes to the GPU.
uint64_t file_bytes(const TrellisView& v) { return code_bytes(v) + v.panels * v.blocks * 8 + 2 * v.rows + 32; }
// What Uploader::matrix keeps of it.
uint64_t kept_bytes(const TrellisView& v) {
  const uint64_t residual = v.residual ? 2 * v.residual->nnz + 8 * v.residual->rows + 4 : 0;
  return data_bytes(v) + 64 * v.panels + residual;
}

template <typename F>
void for_each_linear(const PlainLayer& layer, F f) {
  for (const Linear* linear : layer.qkv) f(*linear);
  f(*layer.output);
  for (const Linear* linear : layer.gate_up) f(*linear);
  f(*layer.down);
}

// Gates and what they gate are one matrix, of which no residual's rows would have to move, too.
bool can_pair(const PlainLayer& layer) {
  const TrellisView& v = view_of(*layer.gate_up[0]);
  return layer.gate_up.size() == 1 && v.rows % 16 == 0 && v.residual == nullptr;
}

// What there will be on the GPU, and on the way there.
struct Sizes {
  uint64_t copied = 0, kept = 0;  // bytes of the file; of the GPU's memory
  uint64_t largest = 0;           // matrix on its way
  uint64_t head = 0;              // of `kept`
  std::vector<uint64_t> layers;   // of `kept`

  uint64_t count(const Linear& linear) {
    const TrellisView& v = view_of(linear);
    copied += file_bytes(v);
    kept += kept_bytes(v);
    largest = std::max(largest, file_bytes(v));
    return kept_bytes(v);
  }
};

[[noreturn]] void refuse(const PlainDecoder& d, const Sizes& sizes, uint64_t free, uint64_t all) {
  // Besides weights: what passes of several tokens work in and CUDA takes for itself, and a cache of the default
  // context.
  constexpr uint64_t kReserve = uint64_t{1} << 30, kPositions = 4096;
  const uint64_t cache =
      4 * kPositions * d.attention.kv_heads * d.attention.head_dim;  // f16 keys and values of a layer
  std::vector<uint64_t> layers;
  // All layers without the embedding are no choice.
  for (size_t i = d.embedding != nullptr; i < sizes.layers.size(); ++i) layers.push_back(sizes.layers[i] + cache);
  const uint64_t fit = last_layers_that_fit(layers, sizes.head + sizes.largest + kReserve, free);
  const auto gib = [](uint64_t bytes) { return static_cast<double>(bytes) / 0x1p30; };
  fail(ErrorCode::kOutOfMemory,
       "{} not fit the GPU: weights {:.2f} GiB and {:.2f} GiB to bring them there; {:.2f} of {:.2f} GiB are free; {}",
       d.embedding ? "the model does" : fmt::format("the head and the last {} layers do", d.layers.size()),
       gib(sizes.kept), gib(sizes.largest), gib(free), gib(all),
       fit > 0
           ? fmt::format("leave layers to the CPU: try --gpu-layers {}", fit)
           : "not even one layer would fit beside the head and 1 GiB to work in (--gpu-layers): choose --device cpu");
}

}  // namespace

uint32_t rows_of(const std::vector<TrellisMatrix>& parts) {
  uint32_t rows = 0;
  for (const TrellisMatrix& w : parts) rows += w.rows;
  return rows;
}

class DeviceWeights::Uploader {
 public:
  Uploader(DeviceWeights& to, OpContext& context, const Progress& progress, uint64_t total, uint64_t largest)
      : to_(to), context_(context), progress_(progress), total_(total) {
    for (auto& piece : pieces_) piece = allocate_pinned<uint8_t>(kPieceBytes, "copying weights");
    raw_ = allocate_device<uint8_t>(largest, "copying weights");
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "streams");
    for (cudaEvent_t& event : free_) check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "events");
  }
  ~Uploader() {
    cudaStreamSynchronize(stream_);
    for (cudaEvent_t event : free_) cudaEventDestroy(event);
    cudaStreamDestroy(stream_);
  }
  Uploader(const Uploader&) = delete;

  TrellisMatrix matrix(const Linear& linear, bool paired = false) {
    const TrellisView& v = view_of(linear);
    TrellisMatrix m{};
    m.rows = static_cast<uint32_t>(v.rows);
    m.cols = static_cast<uint32_t>(v.cols);
    m.panels = static_cast<uint32_t>(v.panels);
    m.blocks = static_cast<uint32_t>(v.blocks);
    m.steps = (m.blocks + kStepBlocks - 1) / kStepBlocks;
    m.bits = v.bits;
    m.paired = paired;
    std::memcpy(m.table, v.table, sizeof m.table);
    set_sums(&m);
    for (unsigned i = 0; i < kTrellisSteps; ++i) m.block_steps[i] = v.steps[i];
    auto* data = keep<uint8_t>(data_bytes(v));
    auto* scales = keep<float>(uint64_t{16} * m.panels);
    // The file's form, in three parts one after the other, then the device's.
    const uint64_t codes = code_bytes(v), block_scales = v.panels * v.blocks * 8;
    const uint64_t scales_at = codes, rows_at = scales_at + (block_scales + 15) / 16 * 16;
    copy(raw_.get(), v.codes, codes);
    copy(raw_.get() + scales_at, v.block_scales, block_scales);
    copy(raw_.get() + rows_at, v.row_scales, 2 * v.rows);
    check(repack(reinterpret_cast<const uint32_t*>(raw_.get()), raw_.get() + scales_at,
                 reinterpret_cast<const uint16_t*>(raw_.get() + rows_at), m, data, scales, stream_),
          "reordering weights");
    m.data = data;
    m.row_scales = scales;
    if (v.residual != nullptr) {
      const MdcsrView& r = *v.residual;
      m.residual_values = array(r.values, r.nnz);
      m.residual_deltas = array(r.delta_indices, r.nnz);
      m.residual_row_pointers = array(r.row_pointers, r.rows + 1);
      m.residual_scales = array(r.scales, r.rows);
    }
    return m;
  }

  template <typename T>
  const T* array(const T* from, uint64_t n) {
    T* to = keep<T>(n);
    copy(to, from, n * sizeof(T));
    return to;
  }
  /// nullptr for none.
  const float* vector(const std::vector<float>& from) {
    return from.empty() ? nullptr : array(from.data(), from.size());
  }
  void finish() { check(cudaStreamSynchronize(stream_), "copying weights"); }

 private:
  template <typename T>
  T* keep(uint64_t n) {
    to_.memory_.push_back(allocate_device<uint8_t>(n * sizeof(T), "the model's weights"));
    to_.bytes += n * sizeof(T);
    return reinterpret_cast<T*>(to_.memory_.back().get());
  }

  void copy(void* to, const void* from, uint64_t bytes) {
    for (uint64_t at = 0; at < bytes; at += kPieceBytes) {
      const uint64_t n = std::min(kPieceBytes, bytes - at);
      uint8_t* piece = pieces_[turn_].get();
      check(cudaEventSynchronize(free_[turn_]), "copying weights");
      const auto* source = static_cast<const uint8_t*>(from) + at;
      context_.pool.split(n, 1 << 20, [&](uint64_t begin, uint64_t end, unsigned) {
        std::memcpy(piece + begin, source + begin, end - begin);
      });
      check(cudaMemcpyAsync(static_cast<uint8_t*>(to) + at, piece, n, cudaMemcpyHostToDevice, stream_),
            "copying weights");
      check(cudaEventRecord(free_[turn_], stream_), "copying weights");
      turn_ ^= 1;
      done_ += n;
      if (progress_ && !progress_("copying weights to the GPU", std::min(done_, total_), total_))
        fail(ErrorCode::kCancelled, "cancelled");
    }
  }

  DeviceWeights& to_;
  OpContext& context_;
  const Progress& progress_;
  uint64_t total_, done_ = 0;
  PinnedMemory<uint8_t> pieces_[2];
  DeviceMemory<uint8_t> raw_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t free_[2] = {};
  unsigned turn_ = 0;
};

DeviceWeights::DeviceWeights(const PlainDecoder& d, OpContext& context, const Progress& progress) {
  Sizes sizes;
  const bool tied = d.embedding != nullptr && d.head->name() == d.embedding->name();
  if (d.embedding != nullptr && !tied) sizes.count(*d.embedding);
  sizes.head = sizes.count(*d.head);
  for (const PlainLayer& layer : d.layers) {
    uint64_t& kept = sizes.layers.emplace_back();
    for_each_linear(layer, [&](const Linear& linear) { kept += sizes.count(linear); });
  }
  size_t free = 0, all = 0;
  check(cudaMemGetInfo(&free, &all), "asking for free memory");
  if (sizes.kept + sizes.largest > free) refuse(d, sizes, free, all);
  Uploader uploader(*this, context, progress, sizes.copied, sizes.largest);
  if (d.embedding != nullptr) embedding = uploader.matrix(*d.embedding);
  // In all layers or none, as those use the same words (tagged.cuh).
  const bool paired = std::all_of(d.layers.begin(), d.layers.end(), [](const PlainLayer& l) { return can_pair(l); });
  for (const PlainLayer& layer : d.layers) {
    LayerWeights& to = layers.emplace_back();
    to.attention_norm = uploader.vector(*layer.attention_norm);
    to.mlp_norm = uploader.vector(*layer.mlp_norm);
    to.qkv_bias = uploader.vector(*layer.qkv_bias);
    to.query_norm = uploader.vector(*layer.query_norm);
    to.key_norm = uploader.vector(*layer.key_norm);
    for (const Linear* linear : layer.qkv) to.qkv.push_back(uploader.matrix(*linear));
    to.output = uploader.matrix(*layer.output);
    for (const Linear* linear : layer.gate_up) to.gate_up.push_back(uploader.matrix(*linear, paired));
    to.down = uploader.matrix(*layer.down);
  }
  norm = uploader.vector(*d.norm);
  head = tied ? embedding : uploader.matrix(*d.head);
  uploader.finish();
}

}  // namespace upg::cuda
