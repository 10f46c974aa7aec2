// Many requests on one engine together, over include/upg/scheduler.h.
#include "upg/scheduler.h"

#include <nanobind/stl/shared_ptr.h>

#include "calls.h"

namespace upg::python {
namespace {

/// A scheduler and its turn at the engine, which is given back when the scheduler's thread has ended.
struct Active {
  Active(const std::shared_ptr<SharedEngine>& engine, const SchedulerOptions& options, Call& call)
      : turn(
            engine, [&] { return call.keep_going(); }, /*for_good=*/true),
        scheduler(engine->engine(), options) {}

  SharedEngine::Turn turn;
  Scheduler scheduler;
};

class SharedScheduler {
 public:
  SharedScheduler(const std::shared_ptr<SharedEngine>& engine, const SchedulerOptions& options, Call& call)
      : engine_(engine), active_(std::make_shared<Active>(engine, options, call)) {}

  /// Throws Error(kInvalidArgument) after close().
  std::shared_ptr<Active> get() const {
    engine_->check_process();
    const std::scoped_lock lock(mutex_);
    if (!active_) throw Error(ErrorCode::kInvalidArgument, "the engine was closed");
    return active_;
  }

  void close() {
    std::shared_ptr<Active> last;
    const std::scoped_lock lock(mutex_);
    last.swap(active_);
  }

  const std::shared_ptr<SharedEngine>& engine() const { return engine_; }

 private:
  std::shared_ptr<SharedEngine> engine_;
  mutable std::mutex mutex_;
  std::shared_ptr<Active> active_;
};

/// A generation keeps the engine, not the scheduler: when that goes, it is cancelled.
struct Running {
  std::shared_ptr<SharedEngine> engine;
  std::shared_ptr<Generation> generation;
};

Running submit(const SharedScheduler& self, const Ids& prompt, const GenerateOptions& options,
               const std::string& client, std::optional<uint32_t> logprobs, bool prompt_logprobs) {
  GenerationRequest request;
  request.prompt.assign(prompt.data(), prompt.data() + prompt.size());
  request.options = options;
  request.client = client;
  request.logprobs = logprobs.has_value();
  request.top_logprobs = logprobs.value_or(0);
  request.prompt_logprobs = prompt_logprobs;
  const std::shared_ptr<Active> active = self.get();
  const nb::gil_scoped_release release;
  return {self.engine(), active->scheduler.submit(std::move(request))};
}

nb::ndarray<nb::numpy, float> embed(const SharedScheduler& self, const Ids& ids) {
  const std::shared_ptr<Active> active = self.get();
  std::vector<float> hidden = [&] {
    const nb::gil_scoped_release release;
    return active->scheduler.embed(span_of(ids));
  }();
  const size_t n = hidden.size();
  return owned_array(std::move(hidden), {n});
}

}  // namespace

void bind_scheduler(nb::module_& m) {
  nb::class_<TokenLogprob>(m, "TokenLogprob")
      .def_ro("token", &TokenLogprob::token)
      .def_ro("logprob", &TokenLogprob::logprob)
      .def_ro("top", &TokenLogprob::top);
  nb::class_<GenerationPiece>(m, "Piece")
      .def_ro("text", &GenerationPiece::text)
      .def_ro("tokens", &GenerationPiece::tokens)
      .def_ro("logprobs", &GenerationPiece::logprobs)
      .def_ro("prompt_logprobs", &GenerationPiece::prompt_logprobs);
  nb::class_<Running>(m, "Generation")
      .def(
          "next",
          [](const Running& r, uint32_t milliseconds) {
            const nb::gil_scoped_release release;
            return r.generation->next(std::chrono::milliseconds(milliseconds));
          },
          nb::arg("milliseconds"))
      .def("cancel", [](const Running& r) { r.generation->cancel(); })
      .def("result", [](const Running& r) { return r.generation->result(); })
      .def_prop_ro("cached_tokens", [](const Running& r) { return r.generation->cached_tokens(); });
  nb::class_<SchedulerStatistics>(m, "SchedulerStatistics")
      .def_ro("running", &SchedulerStatistics::running)
      .def_ro("waiting", &SchedulerStatistics::waiting)
      .def_ro("positions_used", &SchedulerStatistics::positions_used)
      .def_ro("positions", &SchedulerStatistics::positions)
      .def_ro("requests", &SchedulerStatistics::requests)
      .def_ro("refused", &SchedulerStatistics::refused)
      .def_ro("cancelled", &SchedulerStatistics::cancelled)
      .def_ro("prompt_tokens", &SchedulerStatistics::prompt_tokens)
      .def_ro("cached_tokens", &SchedulerStatistics::cached_tokens)
      .def_ro("generated_tokens", &SchedulerStatistics::generated_tokens)
      .def_ro("steps", &SchedulerStatistics::steps);
  nb::class_<SharedScheduler>(m, "Scheduler")
      .def(
          "__init__",
          [](SharedScheduler* self, const std::shared_ptr<SharedEngine>& engine, unsigned parallel, uint64_t context,
             const std::string& kv, bool float_activations, uint64_t queue) {
            Call call;
            const SchedulerOptions options{parallel, {context, kv, float_activations}, queue};
            call.run([&] { new (self) SharedScheduler(engine, options, call); });
          },
          nb::arg("engine"), nb::arg("parallel"), nb::arg("context"), nb::arg("kv"), nb::arg("float_activations"),
          nb::arg("queue"))
      .def_prop_ro("context", [](const SharedScheduler& s) { return s.get()->scheduler.context(); })
      .def("submit", submit, nb::arg("prompt"), nb::arg("options"), nb::arg("client"), nb::arg("logprobs").none(),
           nb::arg("prompt_logprobs"))
      .def("embed", embed, nb::arg("ids"))
      .def("statistics", [](const SharedScheduler& s) { return s.get()->scheduler.statistics(); })
      .def("close", &SharedScheduler::close, nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace upg::python
