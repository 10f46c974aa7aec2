// What a subcommand is, and what they share: progress, interruption, JSON.
#pragma once

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>

#include "upg/progress.h"

namespace upg::cli {

/// A row of the list in main.cc. `add` declares the options on a new subcommand and sets its callback.
struct Command {
  const char* name;
  const char* summary;
  void (*add)(CLI::App& command);
};

std::span<const Command> commands();

void add_compress(CLI::App& command);
void add_convert(CLI::App& command);
void add_pull(CLI::App& command);
void add_inspect(CLI::App& command);
void add_verify(CLI::App& command);
void add_decompress(CLI::App& command);
void add_export(CLI::App& command);
void add_run(CLI::App& command);
void add_chat(CLI::App& command);
void add_serve(CLI::App& command);
void add_eval(CLI::App& command);
void add_bench(CLI::App& command);
void add_kernels(CLI::App& command);

/// Set by the first Ctrl-C; a second one ends the process at once.
extern std::atomic<bool> interrupted;
void catch_interrupts();

/// For a program that goes on: from now on no Ctrl-C ends the process. SIGTERM and SIGHUP set `terminated` as well.
extern std::atomic<bool> terminated;
void survive_interrupts();

/// A bar with the time left on stderr, for work that takes over two seconds, where stderr is a terminal. Asks the work
/// to stop when interrupted.
class ProgressBar {
 public:
  ~ProgressBar() { clear(); }
  Progress callback();
  void clear();

 private:
  void draw(std::string_view stage, uint64_t done, uint64_t total);
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point drawn_{};
  bool shown_ = false;
};

/// --device, --fusion and --gpu-layers.
void add_device_options(CLI::App& command, std::string& device, std::string& fusion,
                        std::optional<uint64_t>& gpu_layers);

/// "19.4 MB", decimal.
std::string human_bytes(uint64_t bytes);

void print_json(const nlohmann::ordered_json& json);

}  // namespace upg::cli
