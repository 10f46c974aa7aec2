#include "line_input.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "command.h"
#include "upg/error.h"

namespace upg::cli {
namespace {

constexpr std::string_view kBlock = "\"\"\"";

class Stream : public LineSource {
 public:
  Stream() = default;
  ~Stream() override { std::free(line_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  Line read(const char*) override {
    errno = 0;
    const ssize_t length = ::getline(&line_, &size_, stdin);
    if (interrupted) throw Error(ErrorCode::kCancelled, "interrupted");
    if (length < 0 && std::ferror(stdin))
      throw Error(ErrorCode::kIo, std::string("cannot read stdin: ") + std::strerror(errno));
    if (length < 0) return {.kind = Line::Kind::kEnd};
    std::string_view text(line_, static_cast<size_t>(length));
    if (text.ends_with('\n')) text.remove_suffix(1);
    if (text.ends_with('\r')) text.remove_suffix(1);
    return {.text = std::string(text)};
  }

 private:
  char* line_ = nullptr;
  size_t size_ = 0;
};

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") + 1 - first);
}

Turn ended(const Line& line) {
  return {.kind = line.kind == Line::Kind::kEnd ? Turn::Kind::kEnd : Turn::Kind::kInterrupted,
          .was_empty = line.was_empty};
}

// `text` is what follows the opening quotes.
Turn read_block(LineSource& source, std::string text) {
  bool first = true;
  for (std::string part = std::move(text), all;; first = false) {
    const std::string_view end = trimmed(part);
    if (end.ends_with(kBlock)) {
      all += part.substr(0, part.rfind(kBlock));
      if (all.ends_with('\n')) all.pop_back();
      return {.text = all};
    }
    if (!first || !part.empty()) all += part + "\n";
    Line line = source.read(". ");
    if (line.kind == Line::Kind::kEnd)
      throw Error(ErrorCode::kInvalidArgument,
                  "the input ends within a block that \"\"\" opened: close it with \"\"\"");
    if (line.kind == Line::Kind::kInterrupted) return {.kind = Turn::Kind::kInterrupted};
    part = std::move(line.text);
  }
}

}  // namespace

std::unique_ptr<LineSource> stream_source() { return std::make_unique<Stream>(); }

std::string history_path() {
  const char* state = std::getenv("XDG_STATE_HOME");
  if (state != nullptr && state[0] == '/') return std::string(state) + "/upg/history";
  const char* home = std::getenv("HOME");
  return home != nullptr && home[0] == '/' ? std::string(home) + "/.local/state/upg/history" : "";
}

Turn read_turn(LineSource& source) {
  Line line = source.read("> ");
  if (line.kind != Line::Kind::kText) return ended(line);
  if (trimmed(line.text).starts_with(kBlock)) {
    Turn turn = read_block(source, line.text.substr(line.text.find(kBlock) + kBlock.size()));
    if (turn.kind == Turn::Kind::kMessage) source.remember(std::string(kBlock) + turn.text + std::string(kBlock));
    return turn;
  }
  std::string text = std::move(line.text);
  while (text.ends_with('\\')) {
    text.back() = '\n';
    line = source.read(". ");
    if (line.kind == Line::Kind::kInterrupted) return ended(line);
    if (line.kind == Line::Kind::kEnd) {
      text.pop_back();
      break;
    }
    text += line.text;
  }
  if (trimmed(text).empty()) return {};
  source.remember(text);
  if (trimmed(text).starts_with('/')) return {.kind = Turn::Kind::kCommand, .text = std::string(trimmed(text))};
  return {.text = std::move(text)};
}

}  // namespace upg::cli
