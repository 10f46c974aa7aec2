// Engine, Session, Chat and streams of them, over include/upg/engine.h and chat.h.
#include <nanobind/stl/map.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/unique_ptr.h>

#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <thread>

#include "calls.h"
#include "upg/chat.h"

namespace upg::python {
namespace {

const char* finish_name(FinishReason reason) {
  static constexpr const char* kNames[] = {"stop", "length", "cancelled"};
  return kNames[static_cast<size_t>(reason)];
}

std::shared_ptr<SharedEngine> open_engine(const std::string& path, unsigned threads, const std::string& device,
                                          std::optional<uint64_t> gpu_layers, const std::string& chat_template,
                                          nb::object progress) {
  Call call(std::move(progress));
  EngineOptions options;
  options.threads = threads;
  options.device = device;
  options.gpu_layers = gpu_layers;
  options.chat_template = chat_template;
  options.progress = call.progress();
  return call.run([&] { return std::make_shared<SharedEngine>(Engine::open(path, options)); });
}

/// A Session or Chat and the engine it takes turns at.
template <typename T>
struct Shared {
  std::shared_ptr<SharedEngine> shared;
  T value;

  Shared(std::shared_ptr<SharedEngine> s, const SessionOptions& options)
      : shared(std::move(s)), value(shared->engine(), options) {}
};
using SharedSession = Shared<Session>;
using SharedChat = Shared<Chat>;

SessionOptions session_options(uint64_t context, const std::string& kv, bool float_activations) {
  return {context, kv, float_activations};
}

using Emit = std::function<bool(std::string_view text)>;
/// A generation that can be run once: with its progress, and who takes the text.
using Generator = std::function<GenerateResult(const Progress& progress, const Emit& emit)>;

Generator session_generator(std::shared_ptr<SharedSession> session, const Ids& prompt, const GenerateOptions& options) {
  return [session, tokens = std::vector<int32_t>(prompt.data(), prompt.data() + prompt.size()), options](
             const Progress& progress, const Emit& emit) {
    GenerateOptions with = options;
    with.progress = progress;
    session->value.rewind(0);
    return session->value.generate(tokens, with, emit);
  };
}

Generator chat_generator(std::shared_ptr<SharedChat> chat, const std::string& messages, const ChatOptions& how,
                         const GenerateOptions& options) {
  return [chat, messages, how, options](const Progress& progress, const Emit& emit) -> GenerateResult {
    GenerateOptions with = options;
    with.progress = progress;
    return chat->value.reply(messages, how, with, emit);
  };
}

GenerateResult generate(const std::shared_ptr<SharedEngine>& shared, const Generator& generator) {
  Call call;
  return call.run([&] {
    const SharedEngine::Turn turn(shared, [&] { return call.keep_going(); });
    return generator(call.progress(), [&](std::string_view) { return call.keep_going(); });
  });
}

/// A generation on a thread of its own, whose text somebody takes when it comes. The thread never needs the GIL, so
/// that it may be waited for with the GIL held.
class Stream {
 public:
  Stream(std::shared_ptr<SharedEngine> shared, Generator generator)
      : shared_(std::move(shared)), generator_(std::move(generator)) {
    shared_->check_process();
    thread_ = std::thread([this] { work(); });
  }
  ~Stream() { close(); }
  Stream(const Stream&) = delete;

  /// The next text; nothing at the end. Throws what the generation threw.
  std::optional<std::string> next() {
    Call call;
    return call.run([&]() -> std::optional<std::string> {
      std::unique_lock lock(mutex_);
      while (!changed_.wait_for(lock, std::chrono::milliseconds(50), [&] { return !texts_.empty() || ended_; })) {
        lock.unlock();
        if (!call.keep_going()) {
          close();
          return std::nullopt;
        }
        lock.lock();
      }
      if (!texts_.empty()) {
        std::string text = std::move(texts_.front());
        texts_.pop_front();
        taken_.notify_one();
        return text;
      }
      if (error_) std::rethrow_exception(error_);
      return std::nullopt;
    });
  }

  void close() {
    cancelled_ = true;
    const std::scoped_lock lock(closing_);
    if (thread_.joinable()) thread_.join();
  }

  /// After the end. Throws Error(kInvalidArgument) before it.
  GenerateResult result() const {
    const std::scoped_lock lock(mutex_);
    if (!ended_ || error_) throw Error(ErrorCode::kInvalidArgument, "the stream has not come to its end");
    return result_;
  }

 private:
  static constexpr size_t kAhead = 64;  // pieces of text before the reader

  void work() {
    std::exception_ptr error;
    GenerateResult result;
    try {
      const SharedEngine::Turn turn(shared_, [this] { return !cancelled_.load(); });
      result = generator_([this](std::string_view, uint64_t, uint64_t) { return !cancelled_.load(); },
                          [this](std::string_view text) { return put(text); });
    } catch (...) {
      error = std::current_exception();
    }
    const std::scoped_lock lock(mutex_);
    result_ = std::move(result);
    error_ = error;
    ended_ = true;
    changed_.notify_all();
  }

  bool put(std::string_view text) {
    std::unique_lock lock(mutex_);
    texts_.emplace_back(text);
    changed_.notify_all();
    // A reader that went away must not cost a processor; one that is slow must not hold up others.
    while (texts_.size() >= kAhead && !cancelled_ && !shared_->wanted())
      taken_.wait_for(lock, std::chrono::milliseconds(50));
    return !cancelled_;
  }

  std::shared_ptr<SharedEngine> shared_;
  Generator generator_;
  std::atomic<bool> cancelled_ = false;
  mutable std::mutex mutex_;
  std::mutex closing_;
  std::condition_variable changed_, taken_;
  std::deque<std::string> texts_;
  GenerateResult result_;
  std::exception_ptr error_;
  bool ended_ = false;
  std::thread thread_;
};

std::vector<float> all_logits(Session& session, std::span<const int32_t> ids, uint64_t vocab, Call& call) {
  std::vector<float> logits(ids.size() * vocab);
  // In pieces, so that Ctrl-C works.
  constexpr uint64_t kPiece = 64;
  session.rewind(0);
  for (uint64_t at = 0; at < ids.size() && call.keep_going(); at += kPiece)
    session.feed_all(ids.subspan(at, std::min<uint64_t>(kPiece, ids.size() - at)), 0,
                     [&](uint64_t token, std::span<const float> row) {
                       std::memcpy(logits.data() + (at + token) * vocab, row.data(), row.size_bytes());
                     });
  return logits;
}

nb::ndarray<nb::numpy, float> session_logits(SharedSession& self, const Ids& ids) {
  Call call;
  const uint64_t vocab = self.shared->engine()->info().vocab_size;
  if (ids.size() == 0) throw Error(ErrorCode::kInvalidArgument, "no tokens to process: the prompt is empty");
  if (ids.size() > self.value.context())
    throw Error(ErrorCode::kInvalidArgument, std::to_string(ids.size()) + " tokens do not fit: the context holds " +
                                                 std::to_string(self.value.context()));
  std::vector<float> logits = call.run([&] {
    const SharedEngine::Turn turn(self.shared, [&] { return call.keep_going(); });
    return all_logits(self.value, span_of(ids), vocab, call);
  });
  return owned_array(std::move(logits), {ids.size(), vocab});
}

void bind_options(nb::module_& m) {
  nb::class_<SamplingOptions>(m, "SamplingOptions")
      .def(nb::init<>())
      .def_rw("temperature", &SamplingOptions::temperature)
      .def_rw("top_k", &SamplingOptions::top_k)
      .def_rw("top_p", &SamplingOptions::top_p)
      .def_rw("min_p", &SamplingOptions::min_p)
      .def_rw("repetition_penalty", &SamplingOptions::repetition_penalty)
      .def_rw("presence_penalty", &SamplingOptions::presence_penalty)
      .def_rw("frequency_penalty", &SamplingOptions::frequency_penalty)
      .def_rw("logit_bias", &SamplingOptions::logit_bias)
      .def_rw("seed", &SamplingOptions::seed);
  nb::class_<GenerateOptions>(m, "GenerateOptions")
      .def(nb::init<>())
      .def_rw("sampling", &GenerateOptions::sampling)
      .def_rw("max_tokens", &GenerateOptions::max_tokens)
      .def_rw("stop", &GenerateOptions::stop)
      .def_rw("end_tokens", &GenerateOptions::end_tokens)
      .def_rw("ignore_eos", &GenerateOptions::ignore_eos);
  nb::class_<GenerateResult>(m, "GenerateResult")
      .def_ro("tokens", &GenerateResult::tokens)
      .def_ro("text", &GenerateResult::text)
      .def_prop_ro("finish_reason", [](const GenerateResult& r) { return finish_name(r.finish); })
      .def_ro("prompt_tokens", &GenerateResult::prompt_tokens)
      .def_ro("prompt_seconds", &GenerateResult::prompt_seconds)
      .def_ro("generate_seconds", &GenerateResult::generate_seconds);
  nb::class_<ModelInfo>(m, "ModelInfo")
      .def_ro("architecture", &ModelInfo::architecture)
      .def_ro("parameters", &ModelInfo::parameters)
      .def_ro("weight_bytes", &ModelInfo::weight_bytes)
      .def_ro("vocab_size", &ModelInfo::vocab_size)
      .def_ro("max_context", &ModelInfo::max_context)
      .def_ro("threads", &ModelInfo::threads)
      .def_ro("device", &ModelInfo::device);
}

void bind_engines(nb::module_& m) {
  using E = SharedEngine;
  nb::class_<E>(m, "Engine")
      .def_static("open", open_engine, nb::arg("path"), nb::arg("threads"), nb::arg("device"),
                  nb::arg("gpu_layers").none(), nb::arg("chat_template"), nb::arg("progress").none())
      .def_prop_ro("info", [](const E& e) { return e.engine()->info(); })
      .def(
          "tokenize",
          [](const E& e, std::string_view text, bool parse_special, bool add_special) {
            std::vector<int32_t> ids = [&] {
              const nb::gil_scoped_release release;
              return e.engine()->tokenize(text, parse_special, add_special);
            }();
            const size_t n = ids.size();
            return owned_array(std::move(ids), {n});
          },
          nb::arg("text"), nb::arg("parse_special"), nb::arg("add_special"))
      .def(
          "detokenize", [](const E& e, const Ids& ids) { return e.engine()->detokenize(span_of(ids)); }, nb::arg("ids"))
      .def(
          "token_bytes",
          [](const E& e, int32_t token) {
            const std::string bytes = e.engine()->token_bytes(token);
            return nb::bytes(bytes.data(), bytes.size());
          },
          nb::arg("token"))
      .def_prop_ro("has_chat_template", [](const E& e) { return e.engine()->has_chat_template(); })
      .def(
          "render_chat",
          [](const E& e, std::string_view messages, bool add_generation_prompt, const std::string& tools,
             const std::string& variables) {
            const nb::gil_scoped_release release;
            return e.engine()->render_chat(messages, {add_generation_prompt, tools, variables});
          },
          nb::arg("messages"), nb::arg("add_generation_prompt"), nb::arg("tools"), nb::arg("variables"))
      .def("default_sampling", [](const E& e) { return e.engine()->default_sampling(); })
      .def_prop_ro("end_tokens", [](const E& e) { return e.engine()->end_tokens(); });
}

void bind_sessions(nb::module_& m) {
  nb::class_<SharedSession>(m, "Session")
      .def(
          "__init__",
          [](SharedSession* self, std::shared_ptr<SharedEngine> engine, uint64_t context, const std::string& kv,
             bool float_activations) {
            new (self) SharedSession(std::move(engine), session_options(context, kv, float_activations));
          },
          nb::arg("engine"), nb::arg("context"), nb::arg("kv"), nb::arg("float_activations"))
      .def_prop_ro("context", [](const SharedSession& s) { return s.value.context(); })
      .def(
          "generate",
          [](std::shared_ptr<SharedSession> s, const Ids& prompt, const GenerateOptions& options) {
            return generate(s->shared, session_generator(s, prompt, options));
          },
          nb::arg("prompt"), nb::arg("options"))
      .def(
          "stream",
          [](std::shared_ptr<SharedSession> s, const Ids& prompt, const GenerateOptions& options) {
            return std::make_unique<Stream>(s->shared, session_generator(s, prompt, options));
          },
          nb::arg("prompt"), nb::arg("options"))
      .def("logits", session_logits, nb::arg("ids"));
  nb::class_<SharedChat>(m, "Chat")
      .def(
          "__init__",
          [](SharedChat* self, std::shared_ptr<SharedEngine> engine, uint64_t context, const std::string& kv,
             bool float_activations) {
            new (self) SharedChat(std::move(engine), session_options(context, kv, float_activations));
          },
          nb::arg("engine"), nb::arg("context"), nb::arg("kv"), nb::arg("float_activations"))
      .def(
          "reply",
          [](std::shared_ptr<SharedChat> c, const std::string& messages, const std::string& tools,
             const std::string& variables, const GenerateOptions& options) {
            return generate(c->shared, chat_generator(c, messages, {true, tools, variables}, options));
          },
          nb::arg("messages"), nb::arg("tools"), nb::arg("variables"), nb::arg("options"))
      .def(
          "stream",
          [](std::shared_ptr<SharedChat> c, const std::string& messages, const std::string& tools,
             const std::string& variables, const GenerateOptions& options) {
            return std::make_unique<Stream>(c->shared, chat_generator(c, messages, {true, tools, variables}, options));
          },
          nb::arg("messages"), nb::arg("tools"), nb::arg("variables"), nb::arg("options"));
  nb::class_<Stream>(m, "Stream")
      .def("next", &Stream::next)
      .def("close", &Stream::close, nb::call_guard<nb::gil_scoped_release>())
      .def("result", &Stream::result);
}

}  // namespace

void bind_engine(nb::module_& m) {
  bind_options(m);
  bind_engines(m);
  bind_sessions(m);
  m.def("builtin_chat_templates", [] {
    std::map<std::string, std::string> templates;
    for (const BuiltinTemplate& t : builtin_chat_templates()) templates.emplace(t.name, t.text);
    return templates;
  });
}

}  // namespace upg::python
