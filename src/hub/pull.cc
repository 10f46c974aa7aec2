#include "hub/pull.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <filesystem>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "base/mapped_file.h"
#include "hub/blob.h"
#include "hub/model_name.h"

namespace upg {
namespace hub {
namespace {

bool goes_on(const Progress& progress, const std::string& stage, uint64_t done, uint64_t total) {
  return !progress || progress(stage, done, total);
}

// Several files at a time. Workers download; the thread that began it shows progress and may stop them.
class Workers {
 public:
  Workers(const Settings& settings, const Cache& cache, const ModelName& name, const std::string& commit,
          std::span<const HubFile> files)
      : settings_(settings), cache_(cache), name_(name), commit_(commit), files_(files), came_(files.size()) {}

  void run(const Progress& progress, uint64_t total) {
    const size_t n = std::min<size_t>(settings_.connections, files_.size());
    std::vector<std::thread> threads;
    active_ = n;
    for (size_t i = 0; i < n; ++i) threads.emplace_back([this] { work(); });
    bool cancelled = false;
    {
      std::unique_lock lock(mutex_);
      while (!ended_.wait_for(lock, std::chrono::milliseconds(100), [&] { return active_ == 0; })) {
        const std::string stage =
            files_.size() == 1 ? files_[0].name : fmt::format("{} of {} files", finished_.load(), files_.size());
        const auto done = static_cast<uint64_t>(std::max<int64_t>(0, received_.bytes.load()));
        lock.unlock();
        if (!goes_on(progress, stage, std::min(done, total), total)) cancelled = stop_ = true;
        lock.lock();
      }
    }
    for (std::thread& thread : threads) thread.join();
    if (cancelled) fail(ErrorCode::kCancelled, "the download was cancelled; the same command goes on with it");
    if (thrown_) std::rethrow_exception(thrown_);
  }

  const std::vector<uint64_t>& came() const { return came_; }

 private:
  void work() {
    try {
      Http http(settings_, [this] { return stop_.load(); });
      for (size_t i; (i = next_++) < files_.size() && !stop_; ++finished_)
        came_[i] = fetch_blob(http, cache_, name_, commit_, files_[i], received_);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!thrown_) thrown_ = std::current_exception();
      stop_ = true;  // the others keep what they have for the next time
    }
    const std::lock_guard lock(mutex_);
    --active_;
    ended_.notify_one();
  }

  const Settings& settings_;
  const Cache& cache_;
  const ModelName& name_;
  const std::string& commit_;
  std::span<const HubFile> files_;
  std::vector<uint64_t> came_;  // by file
  Received received_;
  std::atomic<size_t> next_{0}, finished_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable ended_;
  size_t active_ = 0;
  std::exception_ptr thrown_;
};

// The path of a model whose files the cache has all; empty where it has not.
std::string find_cached(const ModelName& name, const Settings& settings, const HubOptions& options, ModelForm form) {
  const Cache cache(settings.cache, name.id);
  const auto commit = cache.commit_of(name.revision);
  if (!commit) return {};
  const std::vector<HubFile> files = cache.files(*commit);
  if (files.empty()) return {};
  try {
    const Selection selection = select_files(files, name, options, form);
    if (!selection.upg.empty()) return cache.pointer(*commit, selection.upg);
    if (!selection.index.empty()) shards_of_index(read_file(cache.pointer(*commit, selection.index)), files, name);
    return cache.snapshot(*commit);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kNotFound) return {};  // a part of it
    throw;
  }
}

[[noreturn]] void not_cached(const ModelName& name, const Settings& settings) {
  fail(ErrorCode::kNotFound,
       "{}, revision {}: {} does not have it, or not all of it, and this is offline: pull it first", name.id,
       name.revision, settings.cache);
}

PullReport pull_named(const ModelName& name, const Settings& settings, const HubOptions& options, ModelForm form) {
  const auto start = std::chrono::steady_clock::now();
  PullReport report;
  report.repository = name.id;
  report.revision = name.revision;
  if (settings.offline) {
    report.path = find_cached(name, settings, options, form);
    if (report.path.empty()) not_cached(name, settings);
    report.commit = *Cache(settings.cache, name.id).commit_of(name.revision);
    return report;
  }
  need_endpoint(settings, name.id);
  Pull pull(name, settings, options);
  const Selection selection = select_files(pull.listing(), name, options, form);
  pull.fetch(selection.files, report);
  if (!selection.index.empty()) pull.fetch(pull.shards(selection), report);
  pull.cache().remember(name.revision, pull.commit());
  report.commit = pull.commit();
  report.path =
      selection.upg.empty() ? pull.cache().snapshot(pull.commit()) : pull.cache().pointer(pull.commit(), selection.upg);
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace

ModelName named(const std::string& text, const HubOptions& options) {
  auto name = parse_model_name(text);
  if (!name)
    fail(ErrorCode::kInvalidArgument,
         "{:?} is no name of a model: it must be ORG/NAME, ORG/NAME:REVISION or ORG/NAME/FILE.upg", printable(text));
  if (options.revision.empty()) return *name;
  if (!is_revision(options.revision))
    fail(ErrorCode::kInvalidArgument, "{:?} is no revision: it must be a branch, a tag or a commit",
         printable(options.revision));
  if (text.find(':') != std::string::npos && name->revision != options.revision)
    fail(ErrorCode::kInvalidArgument, "two revisions are given: {} with the name, and {}", name->revision,
         options.revision);
  name->revision = options.revision;
  return *name;
}

Pull::Pull(const ModelName& name, const Settings& settings, const HubOptions& options)
    : name_(name), settings_(settings), options_(options), cache_(settings.cache, name.id) {
  Http http(settings, [&] { return !goes_on(options.progress, "asking the hub", 0, 0); });
  commit_ = commit_of(http, name);
  listing_ = list_files(http, name, commit_);
}

void Pull::fetch(const std::vector<HubFile>& files, PullReport& report) {
  uint64_t missing = 0;
  for (const HubFile& file : files) missing += missing_bytes(cache_, commit_, file);
  make_folders(cache_.folder());
  check_space(cache_.folder(), missing);
  Workers workers(settings_, cache_, name_, commit_, files);
  workers.run(options_.progress, missing);
  for (size_t i = 0; i < files.size(); ++i) {
    report.files.push_back({files[i].name, files[i].bytes, workers.came()[i]});
    report.bytes += files[i].bytes;
    report.downloaded += workers.came()[i];
  }
}

std::vector<HubFile> Pull::shards(const Selection& selection) const {
  return shards_of_index(read_file(cache_.pointer(commit_, selection.index)), listing_, name_);
}

}  // namespace hub

bool is_model_name(std::string_view text) { return hub::parse_model_name(text).has_value(); }

PullReport pull_model(const std::string& name, const HubOptions& options, ModelForm form) {
  return hub::pull_named(hub::named(name, options), hub::settings(options), options, form);
}

std::string resolve_model(const std::string& model, const HubOptions& options, ModelForm form) {
  std::error_code none;
  if (std::filesystem::exists(model, none) || !is_model_name(model)) return model;
  const hub::ModelName name = hub::named(model, options);
  const hub::Settings settings = hub::settings(options);
  const std::string cached = hub::find_cached(name, settings, options, form);
  if (!cached.empty()) return cached;
  if (settings.offline) hub::not_cached(name, settings);
  return hub::pull_named(name, settings, options, form).path;
}

}  // namespace upg
