#include "cuda/program_builder.h"

#include <algorithm>

#include "base/checked.h"

namespace upg::cuda {
namespace {

constexpr uint32_t kMostSplits = 2;  // product.cuh adds up so many
// attend.cuh: queries, the new key and value, and the shares of half the warps, for heads of up to 128.
constexpr uint32_t kAttendScratchFloats = (kHeadGroup + 2) * 128 + kWarps / 2 * kHeadGroup * 130;

uint32_t up(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

// Panels and steps of the block with most of them.
uint32_t most_panels(const TrellisMatrix& w, uint32_t splits, uint32_t blocks) { return up(w.panels, blocks / splits); }
uint32_t most_steps(const TrellisMatrix& w, uint32_t splits) { return up(w.steps, splits); }

// Rows with the padding of the last part; the others have none.
uint32_t padded_rows(const std::vector<TrellisMatrix>& parts) {
  uint32_t rows = 0;
  for (const TrellisMatrix& w : parts) rows += 16 * w.panels;
  return rows;
}

Parts parts_of(const float* data, const TrellisMatrix& w, uint32_t splits) { return {data, splits, 16 * w.panels}; }

Stage product(Input input, const TrellisMatrix& w, uint32_t splits, Parts in, float* out) {
  Stage s{};
  s.op = Op::kProduct;
  s.input = input;
  s.w = w;
  s.splits = splits;
  s.in = in;
  s.out = out;
  return s;
}

}  // namespace

uint32_t choose_splits(const TrellisMatrix& w, uint32_t blocks) {
  if (w.residual_values != nullptr) return 1;  // its entries need all columns
  uint32_t best = 1;
  double least = 1e300;
  for (uint32_t splits = 1; splits <= std::min({kMostSplits, w.steps, blocks}); ++splits) {
    // Each further part is read by every block of the next stage.
    const double load = most_panels(w, splits, blocks) * most_steps(w, splits) * (1 + 0.02 * (splits - 1));
    if (load >= least) continue;
    least = load;
    best = splits;
  }
  return best;
}

namespace {

// A slice's results of several matrices would not lie together.
uint32_t qkv_splits(const LayerWeights& layer, uint32_t blocks) {
  return layer.qkv.size() == 1 ? choose_splits(layer.qkv[0], blocks) : 1;
}

}  // namespace

DeviceBuffers make_buffers(const PlainDecoder& d, const DeviceWeights& weights, uint32_t blocks) {
  const char* what = "activations";
  const auto parts = [&](auto member) {
    uint64_t most = 0;
    for (const LayerWeights& layer : weights.layers) {
      const TrellisMatrix& w = layer.*member;
      most = std::max<uint64_t>(most, uint64_t{choose_splits(w, blocks)} * 16 * w.panels);
    }
    return allocate_zeros<float>(most, what);
  };
  DeviceBuffers b;
  for (auto& stream : b.streams) stream = allocate_zeros<float>(d.hidden + 32, what);
  uint64_t qkv = 0, gate_up = 0;
  for (const LayerWeights& layer : weights.layers) {
    qkv = std::max<uint64_t>(qkv, uint64_t{qkv_splits(layer, blocks)} * padded_rows(layer.qkv));
    gate_up = std::max<uint64_t>(gate_up, padded_rows(layer.gate_up));
  }
  b.qkv = allocate_zeros<float>(qkv, what);
  b.output = parts(&LayerWeights::output);
  b.gate_up = allocate_zeros<float>(gate_up, what);
  b.down = parts(&LayerWeights::down);
  b.mixed = allocate_zeros<float>(d.attention.heads * d.attention.head_dim, what);
  b.logits = allocate_zeros<float>(uint64_t{16} * weights.head.panels, what);
  const uint64_t units =
      d.attention.kv_heads * ceil_div(d.attention.heads / d.attention.kv_heads, uint64_t{kHeadGroup});
  b.partial = allocate_zeros<float>(std::max<uint64_t>(units, blocks) * kHeadGroup * (d.attention.head_dim + 2), what);
  b.tickets = allocate_zeros<uint32_t>(d.attention.heads, what);
  b.best = allocate_zeros<Best>(blocks, what);
  return b;
}

Program build_program(const PlainDecoder& d, const DeviceWeights& weights, const DeviceBuffers& b,
                      const DeviceCache& cache, const float* angles, uint32_t blocks) {
  Program p;
  Stage embed{};
  embed.op = Op::kEmbed;
  embed.w = weights.embedding;
  embed.next_stream = b.streams[0].get();
  p.stages.push_back(embed);
  Parts before{};  // what is still to be added to the residual stream
  unsigned turn = 0;
  const auto norm = [&](Stage s, const float* weight, bool keeps) {
    s.stream = b.streams[turn].get();
    turn ^= 1;
    s.next_stream = keeps ? b.streams[turn].get() : nullptr;
    s.norm = weight;
    s.epsilon = d.epsilon;
    return s;
  };
  // Matrices one below the other, of the same normed input; those after the first find the stream added up already.
  const auto normed = [&](const std::vector<TrellisMatrix>& parts, uint32_t splits, Parts in, const float* weight,
                          float* out) {
    p.stages.push_back(norm(product(Input::kNorm, parts[0], splits, in, out), weight, true));
    for (size_t i = 1; i < parts.size(); ++i) {
      out += 16 * parts[i - 1].panels;
      Stage s = product(Input::kNorm, parts[i], 1, {}, out);
      s.stream = b.streams[turn].get();
      s.norm = weight;
      s.epsilon = d.epsilon;
      p.stages.push_back(s);
    }
  };
  for (size_t i = 0; i < weights.layers.size(); ++i) {
    const LayerWeights& layer = weights.layers[i];
    const uint32_t qkv = qkv_splits(layer, blocks), output = choose_splits(layer.output, blocks),
                   down = choose_splits(layer.down, blocks);
    normed(layer.qkv, qkv, before, layer.attention_norm, b.qkv.get());
    Stage attend{};
    attend.op = Op::kAttend;
    attend.in = {b.qkv.get(), qkv, padded_rows(layer.qkv)};
    attend.out = b.mixed.get();
    attend.bias = layer.qkv_bias;
    attend.query_norm = layer.query_norm;
    attend.key_norm = layer.key_norm;
    attend.epsilon = d.epsilon;
    attend.heads = static_cast<uint32_t>(d.attention.heads);
    attend.kv_heads = static_cast<uint32_t>(d.attention.kv_heads);
    attend.head_dim = static_cast<uint32_t>(d.attention.head_dim);
    attend.rotary_dim = static_cast<uint32_t>(d.rotary->of_capacity(cache.capacity).rotary_dim());
    attend.window = static_cast<uint32_t>(std::min<uint64_t>(d.attention.window, UINT32_MAX));
    attend.capacity = static_cast<uint32_t>(cache.capacity);
    attend.angles = angles;
    attend.keys = cache.keys.get() + i * cache.layer_bytes;
    attend.values = cache.values.get() + i * cache.layer_bytes;
    attend.int8_cache = cache.int8;
    if (cache.int8) {
      attend.key_scales = cache.key_scales.get() + i * cache.layer_vectors;
      attend.value_scales = cache.value_scales.get() + i * cache.layer_vectors;
    }
    attend.partial = b.partial.get();
    attend.tickets = b.tickets.get();
    p.stages.push_back(attend);
    p.stages.push_back(
        product(Input::kPlain, layer.output, output, {b.mixed.get(), 1, layer.output.cols}, b.output.get()));
    // In one slice of columns: each more would be read twice.
    normed(layer.gate_up, 1, parts_of(b.output.get(), layer.output, output), layer.mlp_norm, b.gate_up.get());
    p.stages.push_back(
        product(Input::kSwiglu, layer.down, down, {b.gate_up.get(), 1, padded_rows(layer.gate_up)}, b.down.get()));
    before = parts_of(b.down.get(), layer.down, down);
    p.layer_ends.push_back(static_cast<uint32_t>(p.stages.size()));
  }
  p.head = static_cast<uint32_t>(p.stages.size());
  Stage head = norm(product(Input::kNorm, weights.head, 1, before, b.logits.get()), weights.norm, false);
  head.best = b.best.get();
  p.stages.push_back(head);
  Stage select{};
  select.op = Op::kSelect;
  select.best = b.best.get();
  p.stages.push_back(select);
  for (const Stage& s : p.stages) {
    if (s.op == Op::kProduct) p.readings.push_back({s.w.data, s.w.panels, s.w.steps, s.splits, s.w.bits});
  }
  return p;
}

StageRange Program::range(uint32_t begin, uint32_t end) const {
  const auto readings_before = [&](uint32_t stage) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < stage; ++i) n += stages[i].op == Op::kProduct;
    return n;
  };
  return {begin, end, readings_before(begin), readings_before(end)};
}

Machine size_machine(const std::vector<Stage>& stages, uint32_t blocks) {
  Machine m{};
  m.blocks = blocks;
  m.sum_floats = kAttendScratchFloats;
  m.sum_slots = 1;
  for (const Stage& s : stages) {
    if (s.op != Op::kProduct) continue;
    const uint32_t n = most_steps(s.w, s.splits);
    const uint32_t of_warp = up(most_panels(s.w, s.splits, blocks) * n, kWarps);
    // A slice may also have one step less than the widest.
    m.sum_slots = std::max(m.sum_slots, of_warp / std::max(n - 1, 1u) + 2);
    m.slot_bytes = std::max(m.slot_bytes, kUnitSteps * step_bytes(s.w.bits));
    m.input_blocks = std::max(m.input_blocks, kStepBlocks * n);
    if (s.w.residual_values != nullptr) m.residual_columns = std::max(m.residual_columns, up(s.w.cols, 4) * 4);
  }
  m.sum_floats = std::max(m.sum_floats, kWarps * m.sum_slots * 16);
  return m;
}

}  // namespace upg::cuda
