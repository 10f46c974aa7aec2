#include "cuda/program_builder.h"

#include <algorithm>

#include "base/checked.h"

namespace upg::cuda {
namespace {

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

Cut cut(uint32_t things, uint32_t parts) { return {things / parts, things % parts}; }

Stage product(Input input, const TrellisMatrix& w, uint32_t splits, uint32_t blocks, Parts in, float* out) {
  Stage s{};
  s.op = Op::kProduct;
  s.input = input;
  s.w = w;
  s.deal = {splits, blocks / splits, cut(w.steps, splits), cut(w.panels, blocks / splits)};
  for (uint32_t i = 0; i < splits; ++i) s.inverse[i] = inverse_of(s.deal.steps.begin(i + 1) - s.deal.steps.begin(i));
  s.in = in;
  s.one_over_cols = 1 / static_cast<float>(w.cols);
  s.out = out;
  return s;
}

void list_readings(Program& p) {
  for (const Stage& s : p.stages)
    if (s.op == Op::kProduct) p.readings.push_back({s.w.data, s.deal, s.w.steps, s.w.bits});
}

// Slices of columns for which the blocks' shares of a product are most alike; the same for all layers, as they use the
// same words.
uint32_t choose_splits(const std::vector<const TrellisMatrix*>& of_layers, uint32_t blocks) {
  uint32_t best = 1;
  double least = 1e300;
  for (uint32_t splits = 1; splits <= kMostSlices; ++splits) {
    double load = 0;
    for (const TrellisMatrix* w : of_layers) {
      if (splits > 1 && (w->residual_values != nullptr || splits > w->steps || blocks % splits != 0))
        return best;  // a residual's entries need all columns
      // Each further part is read by every block of the next stage.
      load += most_panels(*w, splits, blocks) * most_steps(*w, splits) * (1 + 0.02 * (splits - 1));
    }
    if (load >= least) continue;
    least = load;
    best = splits;
  }
  return best;
}

struct Splits {
  uint32_t qkv = 1, output = 1, down = 1;
};

Splits choose_all_splits(const DeviceWeights& weights, uint32_t blocks) {
  std::vector<const TrellisMatrix*> qkv, output, down;
  bool alone = true;  // a slice's results of several matrices would not lie together
  for (const LayerWeights& layer : weights.layers) {
    alone = alone && layer.qkv.size() == 1;
    qkv.push_back(&layer.qkv[0]);
    output.push_back(&layer.output);
    down.push_back(&layer.down);
  }
  return {alone ? choose_splits(qkv, blocks) : 1, choose_splits(output, blocks), choose_splits(down, blocks)};
}

}  // namespace

uint32_t choose_blocks(const DeviceWeights& weights, uint32_t multiprocessors) {
  for (uint32_t blocks = multiprocessors; blocks > 1; --blocks) {
    const Splits splits = choose_all_splits(weights, blocks);
    bool all = true;
    for (const LayerWeights& layer : weights.layers)
      all = all && layer.output.panels >= blocks / splits.output && layer.down.panels >= blocks / splits.down;
    if (all) return blocks;
  }
  return 1;
}

DeviceBuffers make_buffers(const PlainDecoder& d, const DeviceWeights& weights, uint32_t blocks) {
  const char* what = "activations";
  DeviceBuffers b;
  for (auto& stream : b.streams) stream = allocate_zeros<float>(d.hidden + 32, what);
  const Splits splits = choose_all_splits(weights, blocks);
  uint64_t qkv = 0, output = 0, gate_up = 0, down = 0;
  for (const LayerWeights& layer : weights.layers) {
    qkv = std::max<uint64_t>(qkv, uint64_t{splits.qkv} * padded_rows(layer.qkv));
    output = std::max<uint64_t>(output, uint64_t{splits.output} * 16 * layer.output.panels);
    gate_up = std::max<uint64_t>(gate_up, padded_rows(layer.gate_up));
    down = std::max<uint64_t>(down, uint64_t{splits.down} * 16 * layer.down.panels);
  }
  const uint64_t mixed = ceil_div(d.attention.heads * d.attention.head_dim, uint64_t{16}) * 16;
  b.tagged_floats = qkv + mixed + output + gate_up + down;
  b.tagged = allocate_zeros<float>(b.tagged_floats, what);
  b.qkv = b.tagged.get();
  b.mixed = b.qkv + qkv;
  b.output = b.mixed + mixed;
  b.gate_up = b.output + output;
  b.down = b.gate_up + gate_up;
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
  if (d.embedding != nullptr) {
    Stage embed{};
    embed.op = Op::kEmbed;
    embed.w = weights.embedding;
    embed.next_stream = b.streams[0].get();
    p.stages.push_back(embed);
  }
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
    p.stages.push_back(norm(product(Input::kNorm, parts[0], splits, blocks, in, out), weight, true));
    const bool residual = std::any_of(parts.begin(), parts.end(), [](const TrellisMatrix& w) {
      return w.residual_values != nullptr;  // those need the input as it was before it was quantised
    });
    for (size_t i = 1; i < parts.size(); ++i) {
      out += 16 * parts[i - 1].panels;
      Stage s = product(Input::kNorm, parts[i], 1, blocks, {}, out);
      s.same_input = !residual;
      s.stream = b.streams[turn].get();
      s.norm = weight;
      s.epsilon = d.epsilon;
      p.stages.push_back(s);
    }
  };
  const Splits splits = choose_all_splits(weights, blocks);
  for (size_t i = 0; i < weights.layers.size(); ++i) {
    const LayerWeights& layer = weights.layers[i];
    const size_t first = p.stages.size();
    normed(layer.qkv, splits.qkv, before, layer.attention_norm, b.qkv);
    Stage attend{};
    attend.op = Op::kAttend;
    attend.in = {b.qkv, splits.qkv, padded_rows(layer.qkv)};
    attend.out = b.mixed;
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
    Stage& before_attention = p.stages[first];  // as much as fetch_cache() asks of it
    before_attention.head_dim = attend.head_dim;
    before_attention.capacity = attend.capacity;
    before_attention.keys = attend.keys;
    before_attention.int8_cache = attend.int8_cache;
    p.stages.push_back(attend);
    p.stages.push_back(
        product(Input::kPlain, layer.output, splits.output, blocks, {b.mixed, 1, layer.output.cols}, b.output));
    // In one slice of columns: each more would be read twice.
    const size_t gate_up = p.stages.size();
    normed(layer.gate_up, 1, parts_of(b.output, layer.output, splits.output), layer.mlp_norm, b.gate_up);
    uint32_t gates = layer.down.cols;  // the first of all these rows
    for (size_t k = gate_up; k < p.stages.size(); ++k) {
      p.stages[k].gates = std::min(gates, p.stages[k].w.rows);
      gates -= p.stages[k].gates;
    }
    const bool paired = layer.gate_up[0].paired;
    p.stages.push_back(product(paired ? Input::kPlain : Input::kSwiglu, layer.down, splits.down, blocks,
                               {b.gate_up, 1, layer.down.cols}, b.down));
    before = parts_of(b.down, layer.down, splits.down);
    for (size_t k = first; k < p.stages.size(); ++k)
      p.stages[k].in_layer = p.stages[k].out_layer = static_cast<uint32_t>(i);
    --p.stages[first].in_layer;
    p.layer_ends.push_back(static_cast<uint32_t>(p.stages.size()));
  }
  p.head = static_cast<uint32_t>(p.stages.size());
  Stage head = norm(product(Input::kNorm, weights.head, 1, blocks, before, b.logits.get()), weights.norm, false);
  head.best = b.best.get();
  head.in_layer = static_cast<uint32_t>(weights.layers.size() - 1);
  p.stages.push_back(head);
  Stage select{};
  select.op = Op::kSelect;
  select.best = b.best.get();
  p.stages.push_back(select);
  list_readings(p);
  return p;
}

Program build_products(const std::vector<TrellisMatrix>& matrices, uint32_t blocks, const float* x, float* y) {
  Program p;
  std::vector<const TrellisMatrix*> all;
  for (const TrellisMatrix& w : matrices) all.push_back(&w);
  const uint32_t splits = choose_splits(all, blocks);
  for (const TrellisMatrix& w : matrices)
    p.stages.push_back(product(Input::kPlain, w, splits, blocks, {x, 1, w.cols}, y));
  list_readings(p);
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

AttendShape attend_shape(const AttentionShape& attention, uint64_t position, uint32_t blocks) {
  // Up to so many positions each query head has a block to itself. With more, heads share passes, and if need be
  // several blocks share the positions, each with so many at least: fewer are done before blocks have told each other.
  constexpr uint32_t kFewPositions = 256, kFewestPositions = 128;
  const auto end = static_cast<uint32_t>(position + 1);
  AttendShape a{};
  if (attention.window != 0 && end > attention.window) a.first = end - static_cast<uint32_t>(attention.window);
  const uint32_t n = end - a.first;
  a.few = n <= kFewPositions;
  a.group = static_cast<uint32_t>(attention.heads / attention.kv_heads);
  a.chunks = a.few ? a.group : up(a.group, kHeadGroup);
  a.units = static_cast<uint32_t>(attention.kv_heads) * a.chunks;
  a.each = a.few ? n : std::max(up(n, std::clamp(blocks / a.units, 1u, kMostAttendSplits)), kFewestPositions);
  a.splits = up(n, a.each);
  return a;
}

Machine size_machine(const std::vector<Stage>& stages, uint32_t blocks) {
  Machine m{};
  m.blocks = blocks;
  m.sum_slots = 1;
  uint64_t steps_of[5] = {};  // by bits
  for (const Stage& s : stages) {
    if (s.op != Op::kProduct) continue;
    if (s.input == Input::kNorm) m.hidden = up(s.w.cols, 4) * 4;
    const uint32_t n = most_steps(s.w, s.deal.slices);
    const uint32_t of_warp = up(most_panels(s.w, s.deal.slices, blocks) * n, kWarps);
    // A slice may also have one step less than the widest.
    m.sum_slots = std::max(m.sum_slots, of_warp / std::max(n - 1, 1u) + 2);
    m.most_panels = std::max(m.most_panels, most_panels(s.w, s.deal.slices, blocks));
    steps_of[s.w.bits] += uint64_t{s.w.panels} * s.w.steps;
    m.widest_step = std::max(m.widest_step, step_bytes(s.w.bits));
    m.input_blocks = std::max(m.input_blocks, kStepBlocks * n);
    if (s.w.residual_values != nullptr) m.residual_columns = std::max(m.residual_columns, up(s.w.cols, 4) * 4);
  }
  m.sum_floats = kWarps * m.sum_slots * 16;
  // Room for two steps of most weights: more slots are worth more than units of two for the others.
  const auto bits = static_cast<uint32_t>(std::max_element(steps_of, steps_of + 5) - steps_of);
  m.slot_bytes = std::max(m.widest_step, 2 * step_bytes(bits));
  return m;
}

}  // namespace upg::cuda
