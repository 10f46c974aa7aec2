#include "cuda/cuda_device.h"

#include <algorithm>
#include <optional>

#include "cuda/batch_runner.h"
#include "cuda/first_gpu.h"
#include "cuda/program_builder.h"
#include "cuda/sample_runner.h"
#include "model/layer_split.h"

namespace upg::cuda {
namespace {

class CudaDevice;

class CudaTimeline final : public Timeline {
 public:
  CudaTimeline(CudaDevice& device, uint64_t capacity, const KvType& kv);
  ~CudaTimeline() override;

  uint64_t capacity() const override { return cache_.capacity; }
  uint64_t length() const override { return length_; }
  uint64_t set_length(uint64_t length) override {
    return length_ = first_layers_ ? first_layers_->set_length(length) : length;
  }
  uint64_t bytes_read_at(uint64_t position) const override;
  uint64_t chunk() const override { return first_layers_ ? Model::kChunk : kBatchTokens; }
  void forward(std::span<const int32_t> tokens, LogitsRange range, float* logits) override;
  void forward_candidates(std::span<const int32_t> tokens, const CandidateRequest& request, Candidates& out) override;
  void fetch_logits(Candidates& out) override;
  std::vector<float> mean_hidden(std::span<const int32_t>) override {
    fail(ErrorCode::kUnsupported, "the cuda device does not give hidden states yet; choose --device cpu");
  }
  void fill(uint64_t n) override;

  CachePlace place() const {
    return {cache_.keys.get(),         cache_.values.get(), cache_.key_scales.get(),
            cache_.value_scales.get(), angles_.get(),       static_cast<uint32_t>(cache_.capacity)};
  }
  /// What the CPU's layers make of tokens [n, hidden], until they run again; nullptr where they are all on the GPU.
  const float* begun(std::span<const int32_t> tokens) {
    return first_layers_ ? first_layers_->forward(tokens) : nullptr;
  }
  const std::vector<Stage>& stages() const { return program_.stages; }
  /// Where a pass with others has left the logits that fetch_logits() is to fetch.
  void set_last_logits(const float* logits) { last_logits_ = logits; }
  bool has_int8() const { return cache_.int8; }

 private:
  void run(int32_t token, bool logits);
  void enqueue(uint32_t end);
  void capture();
  void finish();
  void ask_for_logits();

  CudaDevice& device_;
  std::optional<FirstLayers> first_layers_;  // those that the CPU has
  DeviceCache cache_;
  DeviceMemory<float> angles_;
  Program program_;
  DeviceMemory<Stage> stages_;
  DeviceMemory<Reading> readings_;
  DeviceMemory<State> state_;
  PinnedMemory<State> host_state_;
  PinnedMemory<float> host_logits_;
  Machine machine_{};
  cudaGraphExec_t graphs_[2] = {};  // without and with logits
  uint64_t length_ = 0;
  const float* last_logits_ = nullptr;  // on the device
};

class CudaDevice final : public Device {
 public:
  CudaDevice(Model& m, OpContext& c, const DeviceOptions& options)
      : model(m),
        first_layer(first_gpu_layer(options.gpu_layers, m.shape().layers)),
        decoder(plain_decoder(m.decoder(), first_layer)),
        context(c),
        fusion(options.fusion) {
    weights.emplace(decoder, context, options.progress);
    blocks = choose_blocks(*weights, static_cast<uint32_t>(properties.multiProcessorCount));
    buffers = make_buffers(decoder, *weights, blocks);
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "streams");
  }
  ~CudaDevice() override { cudaStreamDestroy(stream); }

  std::string description() const override {
    if (first_layer == 0) return properties.name;
    return fmt::format("{} with {} of {} layers, CPU with {} threads", properties.name, decoder.layers.size(),
                       model.shape().layers, context.pool.size());
  }
  std::unique_ptr<Timeline> timeline(uint64_t capacity, const KvType& kv, Activations activations) override {
    if (activations != Activations::kQuantized)
      fail(ErrorCode::kUnsupported, "the cuda device multiplies int8 activations only");
    if (kv.id != "f16" && kv.id != "int8")
      fail(ErrorCode::kUnsupported, "the cuda device has no cache of type {}: choose f16 or int8", kv.id);
    return std::make_unique<CudaTimeline>(*this, capacity, kv);
  }

  void forward(std::span<const Work> work) override;

  double measure_bandwidth() override {
    constexpr uint64_t kBytes = uint64_t{1} << 30;
    constexpr int kCopies = 8;
    if (!copies[0])
      for (auto& copy : copies) copy = allocate_zeros<uint8_t>(kBytes, "measuring copies");
    cudaEvent_t events[2];
    for (cudaEvent_t& event : events) check(cudaEventCreate(&event), "events");
    check(cudaMemcpyAsync(copies[0].get(), copies[1].get(), kBytes, cudaMemcpyDeviceToDevice, stream), "copying");
    check(cudaEventRecord(events[0], stream), "events");
    for (int i = 0; i < kCopies; ++i)
      check(cudaMemcpyAsync(copies[i & 1].get(), copies[~i & 1].get(), kBytes, cudaMemcpyDeviceToDevice, stream),
            "copying");
    check(cudaEventRecord(events[1], stream), "events");
    check(cudaEventSynchronize(events[1]), "copying");
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, events[0], events[1]), "events");
    for (cudaEvent_t event : events) cudaEventDestroy(event);
    return 2.0 * kCopies * static_cast<double>(kBytes) / (1e-3 * milliseconds);
  }
  std::string_view bandwidth_kind() const override { return "copies"; }
  uint64_t memory_bytes() const override {
    size_t free = 0, total = 0;
    if (cudaMemGetInfo(&free, &total) != cudaSuccess) return 0;
    return total - free - (copies[0] ? uint64_t{2} << 30 : 0);
  }
  /// Whether passes of several tokens can run here; else they run one by one.
  bool can_run_together() const { return can_multiply_tokens(shared_limit()); }
  uint32_t shared_limit() const { return static_cast<uint32_t>(properties.sharedMemPerBlockOptin); }
  DeviceReport report() const override {
    DeviceReport report{fusion, launches};
    if (first_layer > 0) report.gpu_layers = decoder.layers.size();
    return report;
  }

  Model& model;
  const uint64_t first_layer;  // of those that run here; the CPU has the ones before
  const PlainDecoder decoder;
  OpContext& context;
  std::string fusion;
  const cudaDeviceProp properties = use_first_gpu(7, 5, "running a model");
  std::optional<DeviceWeights> weights;
  DeviceBuffers buffers;
  SampleRunner samples{1};
  DeviceMemory<uint8_t> copies[2];
  cudaStream_t stream = nullptr;
  uint32_t blocks = 0;         // of a token's launches
  uint32_t layers_before = 0;  // see State
  uint64_t launches = 0;       // of the last token

 private:
  struct Piece {
    TokenRun run;
    LogitsRange range;   // of its tokens
    uint64_t logits_at;  // where the first of these is among the rows of `work`
    const Work* work;
  };
  struct WantedRow {
    float* logits;     // where all go, or
    const Work* work;  // whose candidates are wanted
  };
  void run_pass(std::span<const Piece> pieces, const std::vector<Stage>& stages, bool only);
  void read_rows(std::span<const WantedRow> rows, float* logits);

  std::optional<BatchRunner> batch_runner_;    // its memory is taken by the first pass
  PinnedMemory<float> host_rows_;              // [BatchRunner::kLogitRows][vocab], the same
  std::optional<SampleRunner> batch_samples_;  // the same
};

CudaTimeline::CudaTimeline(CudaDevice& device, uint64_t capacity, const KvType& kv) : device_(device) {
  const bool int8 = kv.id == "int8";
  const PlainDecoder& d = device.decoder;
  const AttentionShape& a = d.attention;
  if (const uint64_t most = UINT32_MAX / a.kv_heads; capacity > most)
    fail(ErrorCode::kUnsupported, "a context of {} tokens: the cuda device has room for {} keys of a layer's {} heads",
         capacity, most, a.kv_heads);
  if (device.first_layer > 0)
    first_layers_.emplace(device.model, device.context, device.first_layer, capacity, kv, Activations::kQuantized);
  const uint64_t layers = d.layers.size();
  cache_.int8 = int8;
  cache_.capacity = capacity;
  cache_.layer_vectors = a.kv_heads * capacity;
  cache_.layer_bytes = cache_.layer_vectors * a.head_dim * (int8 ? 1 : 2);
  const char* what =
      "the cache of keys and values; ask for a shorter context, the int8 cache, or fewer layers on the GPU "
      "(--gpu-layers)";
  cache_.keys = allocate_zeros<uint8_t>(layers * cache_.layer_bytes, what);
  cache_.values = allocate_zeros<uint8_t>(layers * cache_.layer_bytes, what);
  if (int8) {
    cache_.key_scales = allocate_zeros<float>(layers * cache_.layer_vectors, what);
    cache_.value_scales = allocate_zeros<float>(layers * cache_.layer_vectors, what);
  }
  const Rope& rope = d.rotary->of_capacity(capacity);
  std::vector<float> angles(capacity * rope.rotary_dim());
  for (uint64_t p = 0; p < capacity; ++p) rope.angles(p, angles.data() + p * rope.rotary_dim());
  angles_ = upload(angles.data(), angles.size(), "rotary angles");
  program_ = build_program(d, *device.weights, device.buffers, cache_, angles_.get(), device.blocks);
  stages_ = upload(program_.stages.data(), program_.stages.size(), "the program");
  readings_ = upload(program_.readings.data(), program_.readings.size(), "the program");
  state_ = allocate_zeros<State>(1, "the program");
  host_state_ = allocate_pinned<State>(1, "the program");
  host_logits_ = allocate_pinned<float>(d.vocab, "logits");
  machine_ = size_machine(program_.stages, device.blocks);
  machine_.stages = stages_.get();
  machine_.readings = readings_.get();
  machine_.readings_count = static_cast<uint32_t>(program_.readings.size());
  machine_.state = state_.get();
  const uint32_t limit = device.shared_limit();
  if (!fit_shared_memory(&machine_, limit, device.properties.major >= 9))
    fail(ErrorCode::kUnsupported, "the model's widths need more shared memory than the {} bytes of {}", limit,
         device.properties.name);
  machine_.chained = device.fusion == "graph" && device.properties.major >= 9;
  check(prepare(machine_), "preparing kernels");
  if (device.fusion == "graph") capture();
}

CudaTimeline::~CudaTimeline() {
  cudaStreamSynchronize(device_.stream);
  for (cudaGraphExec_t graph : graphs_)
    if (graph) cudaGraphExecDestroy(graph);
}

uint64_t CudaTimeline::bytes_read_at(uint64_t position) const {
  const AttentionShape& a = device_.decoder.attention;
  const uint64_t positions = a.window != 0 ? std::min(a.window, position + 1) : position + 1;
  const uint64_t on_gpu = positions * 2 * device_.decoder.layers.size() * a.kv_heads *
                          (a.head_dim * (cache_.int8 ? 1 : 2) + (cache_.int8 ? 4 : 0));
  return on_gpu + (first_layers_ ? first_layers_->bytes_read_at(position) : 0);
}

// Stages [0, end), in as many launches as the fusion has.
void CudaTimeline::enqueue(uint32_t end) {
  cudaStream_t stream = device_.stream;
  uint64_t launches = 0;
  const auto go = [&](uint32_t first, uint32_t last) {
    check(launch(machine_, program_.range(first, last), stream), "launching a kernel");
    ++launches;
  };
  if (device_.fusion == "token") {
    go(0, end);
  } else if (device_.fusion == "layer") {
    // The first launch looks the token up too, unless the CPU did; the last one has the head.
    uint32_t first = 0;
    for (size_t i = 0; i < program_.layer_ends.size(); ++i) {
      const uint32_t last = i + 1 == program_.layer_ends.size() ? end : program_.layer_ends[i];
      go(first, last);
      first = last;
    }
  } else {
    for (uint32_t i = 0; i < end; ++i) go(i, i + 1);
  }
  device_.launches = launches;
}

void CudaTimeline::capture() {
  for (int with_logits = 0; with_logits < 2; ++with_logits) {
    cudaGraph_t graph = nullptr;
    check(cudaStreamBeginCapture(device_.stream, cudaStreamCaptureModeThreadLocal), "capturing a graph");
    enqueue(with_logits ? static_cast<uint32_t>(program_.stages.size()) : program_.head);
    check(cudaStreamEndCapture(device_.stream, &graph), "capturing a graph");
    check(cudaGraphInstantiate(&graphs_[with_logits], graph, 0), "making a graph");
    cudaGraphDestroy(graph);
  }
}

void CudaTimeline::run(int32_t token, bool logits) {
  last_logits_ = device_.buffers.logits.get();
  if (const float* x = begun(std::span(&token, 1))) {
    check(cudaMemcpyAsync(device_.buffers.streams[0].get(), x, device_.decoder.hidden * sizeof(float),
                          cudaMemcpyHostToDevice, device_.stream),
          "starting a token");
  }
  host_state_[0] = {token,
                    static_cast<uint32_t>(length_),
                    device_.layers_before,
                    attend_shape(device_.decoder.attention, length_, device_.blocks),
                    0,
                    0,
                    0};
  device_.layers_before += static_cast<uint32_t>(device_.decoder.layers.size());
  check(
      cudaMemcpyAsync(state_.get(), host_state_.get(), offsetof(State, error), cudaMemcpyHostToDevice, device_.stream),
      "starting a token");
  if (graphs_[logits]) {
    check(cudaGraphLaunch(graphs_[logits], device_.stream), "launching a graph");
  } else {
    enqueue(logits ? static_cast<uint32_t>(program_.stages.size()) : program_.head);
  }
  ++length_;
}

void CudaTimeline::finish() {
  check(cudaMemcpyAsync(host_state_.get(), state_.get(), sizeof(State), cudaMemcpyDeviceToHost, device_.stream),
        "reading the result");
  check(cudaStreamSynchronize(device_.stream), "running a token");
  if (host_state_[0].error == 0) return;
  set_bytes(state_.get(), 0, sizeof(State), "clearing an error");
  set_bytes(device_.buffers.tagged.get(), 0, device_.buffers.tagged_floats * sizeof(float), "clearing an error");
  device_.layers_before = 0;
  set_bytes(device_.buffers.tickets.get(), 0, device_.decoder.attention.heads * sizeof(uint32_t), "clearing an error");
  fail(ErrorCode::kIo, "the GPU's blocks waited for each other too long: another program may hold multiprocessors");
}

// They are in host_logits_ once the stream has come so far.
void CudaTimeline::ask_for_logits() {
  check(cudaMemcpyAsync(host_logits_.get(), last_logits_, device_.decoder.vocab * sizeof(float), cudaMemcpyDeviceToHost,
                        device_.stream),
        "reading logits");
}

void CudaTimeline::forward(std::span<const int32_t> tokens, LogitsRange range, float* logits) {
  if (tokens.size() > 1 && device_.can_run_together()) {
    const Work work = {.timeline = this, .tokens = tokens, .range = range, .logits = logits};
    return device_.forward(std::span(&work, 1));
  }
  const uint64_t vocab = device_.decoder.vocab;
  for (uint64_t i = 0; i < tokens.size(); ++i) {
    const bool wanted = i >= range.begin && i < range.end;
    run(tokens[i], wanted);
    if (wanted) ask_for_logits();
    finish();
    if (wanted) std::copy_n(host_logits_.get(), vocab, logits + (i - range.begin) * vocab);
  }
}

void CudaTimeline::forward_candidates(std::span<const int32_t> tokens, const CandidateRequest& request,
                                      Candidates& out) {
  if (tokens.size() > 1 && device_.can_run_together()) {
    const Work work = {.timeline = this, .tokens = tokens, .request = request, .candidates = &out};
    return device_.forward(std::span(&work, 1));
  }
  if (!SampleRunner::has_room(request)) return Timeline::forward_candidates(tokens, request, out);
  if (tokens.size() > 1) forward(tokens.first(tokens.size() - 1), {}, nullptr);
  run(tokens.back(), true);
  // The program has chosen the likeliest in any case.
  const bool more = !request.likeliest_alone();
  const SampleRunner::Row row = {request, device_.buffers.logits.get(), &out};
  if (more) device_.samples.enqueue(std::span(&row, 1), device_.stream);
  finish();
  if (more) return device_.samples.read();
  out.logits.clear();
  out.likeliest = {{host_state_[0].token, 0}};
  out.apart.clear();
}

void CudaTimeline::fetch_logits(Candidates& out) {
  const uint64_t vocab = device_.decoder.vocab;
  ask_for_logits();
  check(cudaStreamSynchronize(device_.stream), "reading logits");
  out.logits.assign(host_logits_.get(), host_logits_.get() + vocab);
  for (const TokenLogit& t : out.apart) out.logits[static_cast<size_t>(t.token)] = t.logit;
}

void CudaTimeline::fill(uint64_t n) {
  // Bytes of 0x2c: 0.066 in f16, 44 in int8.
  const uint64_t layers = device_.decoder.layers.size();
  set_bytes(cache_.keys.get(), 0x2c, layers * cache_.layer_bytes, "filling the cache");
  set_bytes(cache_.values.get(), 0x2c, layers * cache_.layer_bytes, "filling the cache");
  if (first_layers_) first_layers_->fill(n);
  length_ = n;
}

// All runs in as few passes as there is room for, those of one token first.
void CudaDevice::forward(std::span<const Work> work) {
  const auto of = [](const Work& w) { return static_cast<CudaTimeline*>(w.timeline); };
  uint64_t tokens = 0;
  bool alike = true;
  for (const Work& w : work) {
    tokens += w.tokens.size();
    alike = alike && of(w)->has_int8() == of(work[0])->has_int8();
  }
  const bool apart = first_layer > 0 && work.size() > 1;  // each goes through the CPU's layers by itself
  // A single token has a kernel of its own. (On an H200 two take 4.8 ms by that, 4.1 ms together.)
  if (tokens == 1 || !alike || apart || !can_run_together()) return Device::forward(work);
  std::vector<Piece> pieces;
  uint64_t room = kBatchTokens;
  const auto run = [&] {
    if (!pieces.empty()) run_pass(pieces, of(work[0])->stages(), tokens <= kBatchTokens);
    pieces.clear();
    room = kBatchTokens;
  };
  for (const bool single : {true, false}) {
    for (const Work& w : work) {
      if ((w.tokens.size() == 1) != single) continue;
      for (uint64_t at = 0; at < w.tokens.size();) {
        const uint64_t n = std::min(room, w.tokens.size() - at);
        const LogitsRange rows = w.rows();
        const uint64_t begin = std::clamp(rows.begin, at, at + n), end = std::clamp(rows.end, begin, at + n);
        const std::span<const int32_t> now = w.tokens.subspan(at, n);
        pieces.push_back({{now, of(w)->length(), of(w)->place(), of(w)->begun(now)},
                          {begin - at, end - at},
                          begin - std::min(begin, rows.begin),
                          &w});
        of(w)->set_length(of(w)->length() + n);
        at += n;
        room -= n;
        if (room == 0) run();
      }
    }
  }
  run();
}

// `only`: no other pass follows for the same work.
void CudaDevice::run_pass(std::span<const Piece> pieces, const std::vector<Stage>& stages, bool only) {
  if (!batch_runner_) {
    batch_runner_.emplace(decoder, *weights, shared_limit(), has_warpgroups(properties),
                          static_cast<uint32_t>(properties.multiProcessorCount));
    host_rows_ = allocate_pinned<float>(BatchRunner::kLogitRows * decoder.vocab, "logits");
    batch_samples_.emplace(static_cast<uint32_t>(BatchRunner::kLogitRows));
  }
  std::vector<TokenRun> runs;
  for (const Piece& piece : pieces) runs.push_back(piece.run);
  const Queue queue = {stream, properties.major >= 9};
  batch_runner_->run(runs, stages, queue);
  // Rows that are wanted, moved together. Candidates, of which all logits may be fetched later, are looked for where
  // those of all rows stay on the device.
  uint64_t n_wanted = 0, row = 0;
  for (const Piece& piece : pieces) n_wanted += piece.range.end - piece.range.begin;
  const bool stay = only && n_wanted <= BatchRunner::kLogitRows;
  std::vector<WantedRow> wanted;
  for (const Piece& piece : pieces) {
    const uint64_t n = piece.range.end - piece.range.begin;
    if (n > 0) batch_runner_->keep(row + piece.range.begin, n, wanted.size(), queue);
    row += piece.run.tokens.size();
    const Work& work = *piece.work;
    if (n > 0 && work.candidates && stay && SampleRunner::has_room(work.request)) {
      wanted.push_back({nullptr, &work});
    } else if (n > 0) {
      float* to = work.all_logits() + piece.logits_at * decoder.vocab;
      for (uint64_t i = 0; i < n; ++i) wanted.push_back({to + i * decoder.vocab, nullptr});
    }
  }
  for (uint64_t at = 0; at < wanted.size(); at += BatchRunner::kLogitRows) {
    const uint64_t n = std::min(BatchRunner::kLogitRows, wanted.size() - at);
    float* logits = batch_runner_->logits(at, n, queue);
    read_rows(std::span(wanted).subspan(at, n), logits);
  }
  check(cudaStreamSynchronize(stream), "running tokens together");
}

// Rows of logits [rows][vocab] on the device, or candidates from them.
void CudaDevice::read_rows(std::span<const WantedRow> rows, float* logits) {
  std::vector<SampleRunner::Row> chosen;
  std::vector<uint64_t> copied;
  for (uint64_t i = 0; i < rows.size(); ++i) {
    float* from = logits + i * decoder.vocab;
    if (const Work* work = rows[i].work) {
      static_cast<CudaTimeline*>(work->timeline)->set_last_logits(from);
      chosen.push_back({work->request, from, work->candidates});
    } else {
      copied.push_back(i);
      check(cudaMemcpyAsync(host_rows_.get() + i * decoder.vocab, from, decoder.vocab * sizeof(float),
                            cudaMemcpyDeviceToHost, stream),
            "reading logits");
    }
  }
  batch_samples_->enqueue(chosen, stream);
  check(cudaStreamSynchronize(stream), "running tokens together");
  batch_samples_->read();
  context.pool.each(copied.size(), [&](uint64_t i, unsigned) {
    std::copy_n(host_rows_.get() + copied[i] * decoder.vocab, decoder.vocab, rows[copied[i]].logits);
  });
}

}  // namespace

std::unique_ptr<Device> open_device(Model& model, OpContext& context, const DeviceOptions& options) {
  return std::make_unique<CudaDevice>(model, context, options);
}

}  // namespace upg::cuda
