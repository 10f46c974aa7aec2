// The extension module upg._upg: the parts of the library that Python needs, in plain form. What users see is in
// python/upg.
#include <unistd.h>

#include "calls.h"

namespace upg::python {

SharedEngine::SharedEngine(std::shared_ptr<Engine> engine) : engine_(std::move(engine)), process_(::getpid()) {}

void SharedEngine::check_process() const {
  if (::getpid() != process_)
    throw Error(ErrorCode::kUnsupported,
                "this model was loaded before the process was forked, and its threads are not here: load it after the "
                "fork, or start processes with multiprocessing's \"spawn\"");
}

SharedEngine::Turn::Turn(std::shared_ptr<SharedEngine> shared, const std::function<bool()>& keep_waiting, bool for_good)
    : shared_(std::move(shared)) {
  shared_->check_process();
  struct Waiting {
    std::atomic<unsigned>& count;
    explicit Waiting(std::atomic<unsigned>& c) : count(c) { ++count; }
    ~Waiting() { --count; }
  } const waiting(shared_->waiting_);
  std::unique_lock lock(shared_->mutex_);
  while (!shared_->freed_.wait_for(lock, std::chrono::milliseconds(50), [&] { return !shared_->taken_; })) {
    if (shared_->for_good_)
      throw Error(ErrorCode::kBusy, "a scheduler (LLM or AsyncEngine) runs on this model: close it first");
    lock.unlock();
    if (!keep_waiting()) throw Error(ErrorCode::kCancelled, "cancelled while another call ran on the model");
    lock.lock();
  }
  shared_->taken_ = true;
  shared_->for_good_ = for_good;
}

SharedEngine::Turn::~Turn() {
  {
    const std::scoped_lock lock(shared_->mutex_);
    shared_->taken_ = shared_->for_good_ = false;
  }
  shared_->freed_.notify_one();
}

namespace {

// upg._errors has the classes, in the order of ErrorCode.
void translate(const std::exception_ptr& pointer, void*) {
  try {
    std::rethrow_exception(pointer);
  } catch (const Error& error) {
    const nb::object classes = nb::module_::import_("upg._errors").attr("BY_CODE");
    const nb::object type = classes[static_cast<size_t>(error.code())];
    // A message may quote bytes of a file that are not UTF-8.
    const nb::object text = nb::steal(PyUnicode_DecodeUTF8(
        error.what(), static_cast<Py_ssize_t>(std::char_traits<char>::length(error.what())), "replace"));
    PyErr_SetObject(type.ptr(), text.ptr());
  }
}

}  // namespace

void bind_errors(nb::module_&) { nb::register_exception_translator(translate); }

}  // namespace upg::python

NB_MODULE(_upg, module) {
  nanobind::set_leak_warnings(false);  // arrays on a matrix may live until the interpreter's end
  module.doc() = "The compiled part of upg. Use the package upg instead.";
  module.attr("version") = UPG_VERSION;
  upg::python::bind_errors(module);
  upg::python::bind_engine(module);
  upg::python::bind_scheduler(module);
  upg::python::bind_models(module);
  upg::python::bind_matrix(module);
}
