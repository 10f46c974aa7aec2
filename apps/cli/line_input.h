// Where the turns of a conversation come from: a terminal with editing and history, or a stream. A turn is a line; a
// line that ends in a backslash goes on in the next, and """ opens a block of lines that """ closes.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace upg::cli {

struct Line {
  enum class Kind { kText, kEnd, kInterrupted };
  Kind kind = Kind::kText;
  std::string text{};      // without the line break
  bool was_empty = false;  // nothing was typed when it was interrupted
};

class LineSource {
 public:
  virtual ~LineSource() = default;
  /// Throws Error(kCancelled) where the program was asked to end, Error(kIo) where the system cannot read.
  virtual Line read(const char* prompt) = 0;
  /// Puts a whole turn into the history.
  virtual void remember(const std::string&) {}
};

std::unique_ptr<LineSource> stream_source();

/// Line editing on the terminal that stdin is. Tab completes `words` at the beginning of a line; `history` is a file of
/// earlier turns, empty for none: it is read now, and remember() appends to it.
std::unique_ptr<LineSource> terminal_source(std::span<const std::string> words, const std::string& history);

/// $XDG_STATE_HOME/upg/history or ~/.local/state/upg/history; empty where there is no home.
std::string history_path();

struct Turn {
  enum class Kind { kMessage, kCommand, kEnd, kInterrupted };
  Kind kind = Kind::kMessage;
  std::string text{};
  bool was_empty = false;
};

/// The next turn: "/..." outside of """ is a command. Throws Error(kInvalidArgument) for a block that the input's end
/// leaves open.
Turn read_turn(LineSource& source);

}  // namespace upg::cli
