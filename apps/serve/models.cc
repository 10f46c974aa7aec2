#include "models.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "errors.h"
#include "tool_formats.h"

namespace upg::serve {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

ModelSource source_of(const fs::path& path, const std::string& name) {
  struct stat status {};
  ::stat(path.c_str(), &status);
  return {name, path.string(), static_cast<int64_t>(status.st_mtime)};
}

// "phi-4" of dir/phi-4.upg and of dir/phi-4/.
std::string name_of(const fs::path& path) {
  const fs::path last = path.has_filename() ? path.filename() : path.parent_path().filename();
  return last.extension() == ".upg" ? last.stem().string() : last.string();
}

std::shared_ptr<ServedModel> load(const ModelSource& source, const ModelOptions& options) {
  auto model = std::make_shared<ServedModel>();
  model->name = source.name;
  model->engine = Engine::open(source.path, options.engine);
  if (model->engine->has_chat_template()) {
    model->ends = chat_ends(*model->engine);
    model->tools = find_tool_format(*model->engine);
  }
  model->scheduler = std::make_unique<Scheduler>(model->engine, options.scheduler);
  return model;
}

}  // namespace

Models::Models(std::vector<ModelSource> sources, bool any_name, const ModelOptions& options)
    : options_(options), any_name_(any_name) {
  for (ModelSource& source : sources) {
    slots_.push_back(std::make_unique<Slot>());
    slots_.back()->source = std::move(source);
  }
  if (options.idle_unload.count() > 0) unloader_ = std::thread([this] { unload_idle(); });
}

std::unique_ptr<Models> Models::single(const std::string& path, const std::string& alias, const ModelOptions& options) {
  const std::string name = alias.empty() ? name_of(fs::absolute(path).lexically_normal()) : alias;
  ModelOptions kept = options;
  kept.idle_unload = std::chrono::seconds(0);
  std::unique_ptr<Models> models(new Models({source_of(path, name)}, /*any_name=*/true, kept));
  models->find(name);
  return models;
}

std::unique_ptr<Models> Models::folder(const std::string& folder, const ModelOptions& options) {
  std::vector<ModelSource> sources;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    const bool file = entry.is_regular_file() && entry.path().extension() == ".upg";
    if (file || fs::is_regular_file(entry.path() / "config.json"))
      sources.push_back(source_of(entry.path(), name_of(entry.path())));
  }
  if (error) throw Error(ErrorCode::kNotFound, fmt::format("--models {}: {}", folder, error.message()));
  if (sources.empty())
    throw Error(ErrorCode::kNotFound, fmt::format("--models {}: has no *.upg and no checkpoint directory", folder));
  std::sort(sources.begin(), sources.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  for (size_t i = 1; i < sources.size(); ++i)
    if (sources[i].name == sources[i - 1].name)
      throw Error(ErrorCode::kInvalidArgument, fmt::format("--models {}: {} and {} have the same name", folder,
                                                           sources[i - 1].path, sources[i].path));
  return std::unique_ptr<Models>(new Models(std::move(sources), /*any_name=*/false, options));
}

Models::~Models() {
  {
    const std::scoped_lock lock(mutex_);
    stopped_ = true;
  }
  stopping_.notify_all();
  if (unloader_.joinable()) unloader_.join();
}

Models::Slot* Models::slot(const std::string& name) const {
  if (any_name_) return slots_.front().get();
  for (const auto& slot : slots_)
    if (slot->source.name == name) return slot.get();
  return nullptr;
}

const ModelSource* Models::source(const std::string& name) const {
  const Slot* found = slot(name);
  return found == nullptr ? nullptr : &found->source;
}

std::shared_ptr<ServedModel> Models::find(const std::string& name) {
  Slot* found = slot(name);
  if (found == nullptr)
    throw RequestError(404, fmt::format("there is no model \"{}\": GET /v1/models lists them", name), "model",
                       "model_not_found");
  const auto take = [&] {
    const std::scoped_lock lock(mutex_);
    found->used = Clock::now();
    if (draining_) throw RequestError(503, "the server is shutting down", {}, "shutting_down");
    return found->model;
  };
  if (auto model = take()) return model;
  const std::scoped_lock loading(found->loading);  // others load at the same time; this one is loaded once
  if (auto model = take()) return model;
  std::shared_ptr<ServedModel> model;
  try {
    model = load(found->source, options_);
  } catch (const Error& error) {
    if (any_name_) throw;
    throw RequestError(500, fmt::format("the model \"{}\" cannot be loaded: {}", name, error.what()), "model");
  }
  const std::scoped_lock lock(mutex_);
  found->used = Clock::now();
  found->model = model;
  return model;
}

std::vector<ModelSource> Models::list() const {
  std::vector<ModelSource> sources;
  for (const auto& slot : slots_) sources.push_back(slot->source);
  return sources;
}

std::vector<std::shared_ptr<ServedModel>> Models::loaded() const {
  const std::scoped_lock lock(mutex_);
  std::vector<std::shared_ptr<ServedModel>> models;
  for (const auto& slot : slots_)
    if (slot->model) models.push_back(slot->model);
  return models;
}

bool Models::drain(std::chrono::milliseconds timeout) {
  {
    const std::scoped_lock lock(mutex_);
    draining_ = true;
  }
  const auto end = Clock::now() + timeout;
  bool all = true;
  for (const auto& model : loaded()) model->draining = true;
  for (const auto& model : loaded())
    all = model->scheduler->drain(std::max(std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()),
                                           std::chrono::milliseconds(0))) &&
          all;
  return all;
}

void Models::unload_idle() {
  std::unique_lock lock(mutex_);
  while (!stopped_) {
    stopping_.wait_for(lock, std::chrono::seconds(1));
    std::vector<std::shared_ptr<ServedModel>> leaving;  // freed without the lock: it takes a while
    for (const auto& slot : slots_)
      if (slot->model && slot->model.use_count() == 1 && Clock::now() - slot->used > options_.idle_unload)
        leaving.push_back(std::move(slot->model));
    lock.unlock();
    leaving.clear();
    lock.lock();
  }
}

}  // namespace upg::serve
