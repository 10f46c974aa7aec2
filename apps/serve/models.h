// The models that can be asked for by name: one that is always there, or those of a folder, loaded at first use.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "upg/chat.h"
#include "upg/engine.h"
#include "upg/scheduler.h"

namespace upg::serve {

struct ToolFormat;

struct ServedModel {
  std::string name;
  std::shared_ptr<Engine> engine;
  ChatEnds ends;                         // empty without a chat template
  const ToolFormat* tools = nullptr;     // how the template writes calls, where it does
  std::atomic<bool> draining{false};     // what still waits for its turn never gets it
  std::unique_ptr<Scheduler> scheduler;  // after the engine: goes first
};

struct ModelSource {
  std::string name, path;
  int64_t created = 0;  // when the file was written, in seconds of Unix time
};

struct ModelOptions {
  EngineOptions engine;
  SchedulerOptions scheduler;
  std::chrono::seconds idle_unload{0};  // 0: never
};

class Models {
 public:
  /// One model, loaded at once; requests may call it what they like. Throws Error.
  static std::unique_ptr<Models> single(const std::string& path, const std::string& alias, const ModelOptions& options);
  /// Every UPG file and checkpoint directory in `folder`. Throws Error(kNotFound) where there is none.
  static std::unique_ptr<Models> folder(const std::string& folder, const ModelOptions& options);
  ~Models();

  /// Loads the model where it is not. Throws RequestError(404), Error.
  std::shared_ptr<ServedModel> find(const std::string& name);
  /// Of what the name stands for; nullptr where it stands for nothing.
  const ModelSource* source(const std::string& name) const;
  std::vector<ModelSource> list() const;
  std::vector<std::shared_ptr<ServedModel>> loaded() const;
  bool any_name() const { return any_name_; }

  /// Takes no more requests and waits for those there are. Returns whether all ended.
  bool drain(std::chrono::milliseconds timeout);

 private:
  struct Slot {
    ModelSource source;
    std::mutex loading;
    std::shared_ptr<ServedModel> model;  // under mutex_
    std::chrono::steady_clock::time_point used{};
  };
  Models(std::vector<ModelSource> sources, bool any_name, const ModelOptions& options);
  Slot* slot(const std::string& name) const;
  void unload_idle();

  ModelOptions options_;
  bool any_name_;
  std::vector<std::unique_ptr<Slot>> slots_;
  mutable std::mutex mutex_;
  std::condition_variable stopping_;
  bool stopped_ = false, draining_ = false;
  std::thread unloader_;
};

}  // namespace upg::serve
