// What every binding needs: long calls without the GIL that Ctrl-C and exceptions of callbacks can end, taking turns at
// an engine, and arrays of numbers that NumPy owns.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "upg/engine.h"
#include "upg/progress.h"

namespace upg::python {

namespace nb = nanobind;

/// Token ids in, without a copy.
using Ids = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
inline std::span<const int32_t> span_of(const Ids& ids) { return {ids.data(), ids.size()}; }

/// A vector becomes a NumPy array that owns it, of this shape.
template <typename T>
nb::ndarray<nb::numpy, T> owned_array(std::vector<T> values, std::vector<size_t> shape) {
  auto* kept = new std::vector<T>(std::move(values));
  nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return nb::ndarray<nb::numpy, T>(kept->data(), shape.size(), shape.data(), owner);
}

/// One long call. Work runs without the GIL; between its steps signals are looked at, and an exception of Python's,
/// KeyboardInterrupt or a callback's own, stops it and then takes the place of the library's Error(kCancelled).
class Call {
 public:
  /// `progress` is called with (stage, done, total), or None. Returning False stops the work.
  explicit Call(nb::object progress = nb::none()) : callback_(std::move(progress)) {}

  upg::Progress progress() {
    return [this](std::string_view stage, uint64_t done, uint64_t total) {
      const nb::gil_scoped_acquire gil;
      return guarded([&] {
        if (callback_.is_none()) return true;
        const nb::object said = callback_(nb::str(stage.data(), stage.size()), done, total);
        return !said.is(nb::handle(Py_False));
      });
    };
  }

  /// For loops that come by more often than a person can press a key. Takes the GIL seldom, because another thread of
  /// Python's may keep it for milliseconds.
  bool keep_going() {
    const auto now = std::chrono::steady_clock::now();
    if (now - looked_ < std::chrono::milliseconds(50)) return !failure_;
    looked_ = now;
    const nb::gil_scoped_acquire gil;
    return guarded([] { return true; });
  }

  /// With the GIL held: whether work may go on. `step` may throw nb::python_error.
  template <typename Step>
  bool guarded(Step&& step) {
    if (failure_) return false;
    try {
      if (PyErr_CheckSignals() != 0) throw nb::python_error();
      return step();
    } catch (nb::python_error&) {
      failure_ = std::current_exception();
      return false;
    }
  }

  /// work() without the GIL.
  template <typename Work>
  auto run(Work&& work) {
    try {
      if constexpr (std::is_void_v<decltype(work())>) {
        {
          const nb::gil_scoped_release release;
          work();
        }
        rethrow();
      } else {
        auto result = [&] {
          const nb::gil_scoped_release release;
          return work();
        }();
        rethrow();
        return result;
      }
    } catch (const Error&) {
      rethrow();
      throw;
    }
  }

 private:
  void rethrow() {
    if (failure_) std::rethrow_exception(failure_);
  }

  nb::object callback_;
  std::exception_ptr failure_;
  std::chrono::steady_clock::time_point looked_ = std::chrono::steady_clock::now();
};

/// An engine that threads of Python's share: calls on it take turns.
class SharedEngine {
 public:
  explicit SharedEngine(std::shared_ptr<Engine> engine);

  const std::shared_ptr<Engine>& engine() const { return engine_; }
  /// Throws Error(kUnsupported) in a child of the process that opened it, whose threads are not there.
  void check_process() const;
  /// Whether a call waits for its turn.
  bool wanted() const { return waiting_ > 0; }

  /// Holds the turn. Waits for it, without the GIL, while `keep_waiting` says so. `for_good`: others are refused
  /// meanwhile instead of waiting. Throws Error(kBusy), Error(kCancelled).
  class Turn {
   public:
    Turn(std::shared_ptr<SharedEngine> shared, const std::function<bool()>& keep_waiting, bool for_good = false);
    ~Turn();
    Turn(const Turn&) = delete;

   private:
    std::shared_ptr<SharedEngine> shared_;
  };

 private:
  std::shared_ptr<Engine> engine_;
  long process_;
  std::mutex mutex_;
  std::condition_variable freed_;
  bool taken_ = false;
  std::atomic<unsigned> waiting_ = 0;
  bool for_good_ = false;
};

/// Parts of the module, one source each.
void bind_errors(nb::module_& module);
void bind_engine(nb::module_& module);
void bind_scheduler(nb::module_& module);
void bind_models(nb::module_& module);
void bind_matrix(nb::module_& module);

}  // namespace upg::python
