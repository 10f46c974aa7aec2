#include "command.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

namespace upg::cli {

std::atomic<bool> interrupted{false}, terminated{false};

void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = [](int) { interrupted = true; };
  action.sa_flags = SA_RESETHAND;  // the second one takes the default course
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

void survive_interrupts() {
  struct sigaction action {};
  action.sa_flags = SA_RESTART;  // an answer is being written
  action.sa_handler = [](int) { interrupted = true; };
  sigaction(SIGINT, &action, nullptr);
  action.sa_handler = [](int) { interrupted = terminated = true; };
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGHUP, &action, nullptr);
}

Progress ProgressBar::callback() {
  return [this](std::string_view stage, uint64_t done, uint64_t total) {
    draw(stage, done, total);
    return !interrupted.load();
  };
}

void ProgressBar::draw(std::string_view stage, uint64_t done, uint64_t total) {
  using Seconds = std::chrono::duration<double>;
  const auto now = std::chrono::steady_clock::now();
  const double elapsed = Seconds(now - start_).count();
  if (total == 0 || elapsed < 2 || Seconds(now - drawn_).count() < 0.1 || !::isatty(STDERR_FILENO)) return;
  drawn_ = now;
  shown_ = true;
  const double share = static_cast<double>(done) / static_cast<double>(total);
  const int filled = static_cast<int>(share * 30);
  const std::string left = done > 0 ? fmt::format("{:.0f} s left", elapsed / share - elapsed) : "";
  fmt::print(stderr, "\r\x1b[K[{:#<{}}{:.<{}}] {:3.0f}% {:>12}  {:.40}", "", filled, "", 30 - filled, share * 100, left,
             stage);
  std::fflush(stderr);
}

void ProgressBar::clear() {
  if (shown_) fmt::print(stderr, "\r\x1b[K");
  shown_ = false;
}

std::string human_bytes(uint64_t bytes) {
  const char* units[] = {"B", "kB", "MB", "GB", "TB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1000 && unit + 1 < std::size(units)) {
    value /= 1000;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.2f} {}", value, units[unit]);
}

void add_device_options(CLI::App& command, std::string& device, std::string& fusion,
                        std::optional<uint64_t>& gpu_layers) {
  command.add_option("--device", device, "Where the model runs: cpu or cuda [cpu]");
  command.add_option(
      "--fusion", fusion,
      "cuda: kernels of a token launched one by one (none), as a graph, a layer at a time (layer) or all "
      "as one (token) [token]");
  command
      .add_option(
          "--gpu-layers", gpu_layers,
          "cuda: the last N layers and the head run on the GPU, the others on the CPU, for a model that does not "
          "fit; for none at all, --device cpu [all]")
      ->type_name("N")
      ->check([](const std::string& text) {
        const bool number = text.size() < 10 && text.find_first_not_of("0123456789") == text.npos;
        if (number && !text.empty() && text[0] != '0') return std::string();
        return fmt::format("\"{}\" is no number of layers: give 1 or more, or --device cpu for none on the GPU", text);
      });
}

void print_json(const nlohmann::ordered_json& json) { fmt::print("{}\n", json.dump(2)); }

}  // namespace upg::cli
