// Line editing by libedit. Signals stay the program's: Ctrl-C is seen by read_key, which ends the line.
#include <fcntl.h>
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <cwchar>
#include <filesystem>
#include <fstream>
#include <vector>

#include "command.h"
#include "line_input.h"
#include "upg/error.h"

namespace upg::cli {
namespace {

constexpr int kRemembered = 1000;  // turns

std::atomic<bool> resized{false}, continued{false};

// A turn as one line of the file: a backslash and a line break are written \\ and \n.
std::string escaped(const std::string& text) {
  std::string out;
  for (char c : text) out += c == '\\' ? "\\\\" : c == '\n' ? "\\n" : std::string(1, c);
  return out;
}

std::string unescaped(const std::string& line) {
  std::string out;
  for (size_t i = 0; i < line.size(); ++i) {
    const bool pair = line[i] == '\\' && i + 1 < line.size();
    out += !pair ? line[i] : line[i + 1] == 'n' ? '\n' : line[i + 1];
    i += pair ? 1 : 0;
  }
  return out;
}

class Terminal : public LineSource {
 public:
  Terminal(std::span<const std::string> words, std::string path)
      : words_(words.begin(), words.end()), path_(std::move(path)) {
    ::setlocale(LC_CTYPE, "");
    if (std::strcmp(::nl_langinfo(CODESET), "UTF-8") != 0) ::setlocale(LC_CTYPE, "C.UTF-8");
    out_ = ::isatty(STDOUT_FILENO) ? stdout : stderr;
    edit_ = ::el_init("upg", stdin, out_, stderr);
    history_ = ::history_init();
    if (edit_ == nullptr || history_ == nullptr) throw Error(ErrorCode::kIo, "the terminal cannot be used");
    HistEvent event;
    ::history(history_, &event, H_SETSIZE, kRemembered);
    ::history(history_, &event, H_SETUNIQUE, 1);
    read_history();
    ::el_set(edit_, EL_CLIENTDATA, this);
    ::el_set(edit_, EL_PROMPT, prompt_of);
    ::el_set(edit_, EL_EDITOR, "emacs");
    ::el_set(edit_, EL_HIST, ::history, history_);
    ::el_set(edit_, EL_GETCFN, read_key);
    ::el_set(edit_, EL_ADDFN, "upg-complete", "Complete a command", complete);
    ::el_set(edit_, EL_BIND, "\t", "upg-complete", nullptr);
    ::el_set(edit_, EL_BIND, "^R", "em-inc-search-prev", nullptr);
    ::el_source(edit_, nullptr);  // the user's own .editrc
    watch(SIGWINCH, [](int) { resized = true; });
    watch(SIGCONT, [](int) { continued = true; });
  }
  ~Terminal() override {
    if (edit_ != nullptr) ::el_end(edit_);
    if (history_ != nullptr) ::history_end(history_);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  Line read(const char* prompt) override {
    prompt_ = prompt;
    stopped_ = false;
    int length = 0;
    // Before the prompt is seen: el_gets sets it after, and a Ctrl-D between the two is lost.
    ::el_set(edit_, EL_PREP_TERM, 1);
    const char* text = ::el_gets(edit_, &length);
    if (stopped_) {
      std::fputs("^C\n", out_);
      std::fflush(out_);
      if (terminated) throw Error(ErrorCode::kCancelled, "terminated");
      return {.kind = Line::Kind::kInterrupted, .was_empty = was_empty_};
    }
    if (text == nullptr || length <= 0) {
      std::fputs("\n", out_);
      return {.kind = Line::Kind::kEnd};
    }
    std::string line(text, static_cast<size_t>(length));
    if (line.ends_with('\n')) line.pop_back();
    return {.text = std::move(line)};
  }

  void remember(const std::string& turn) override {
    HistEvent event;
    ::history(history_, &event, H_ENTER, turn.c_str());
    const int file = open_history(O_WRONLY | O_APPEND | O_CREAT);
    if (file < 0) return;
    const std::string line = escaped(turn) + "\n";
    [[maybe_unused]] const ssize_t written = ::write(file, line.data(), line.size());
    ::close(file);
  }

 private:
  static Terminal& of(EditLine* edit) {
    void* self = nullptr;
    ::el_get(edit, EL_CLIENTDATA, &self);
    return *static_cast<Terminal*>(self);
  }

  static void watch(int signum, void (*handler)(int)) {
    struct sigaction action {};
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    sigaction(signum, &action, nullptr);
  }

  static char* prompt_of(EditLine* edit) { return const_cast<char*>(of(edit).prompt_); }

  // 1: a character, 0: the end, -1: interrupted.
  static int read_key(EditLine* edit, wchar_t* out) {
    Terminal& self = of(edit);
    std::mbstate_t state{};
    for (;;) {
      pollfd waiting{STDIN_FILENO, POLLIN, 0};
      const int ready = ::poll(&waiting, 1, 200);  // a signal in between is seen soon
      if (interrupted.exchange(false)) {           // taken here and nowhere later: the next press is another
        const LineInfo* line = ::el_line(edit);
        self.was_empty_ = line->lastchar == line->buffer;
        self.stopped_ = true;
        return -1;
      }
      if (resized.exchange(false)) ::el_resize(edit);
      if (continued.exchange(false)) {  // the shell has set the terminal as it likes it
        ::el_set(edit, EL_PREP_TERM, 0);
        ::el_set(edit, EL_PREP_TERM, 1);
        ::el_set(edit, EL_REFRESH);
      }
      if (ready <= 0) continue;
      char byte = 0;
      const ssize_t n = ::read(STDIN_FILENO, &byte, 1);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return 0;
      const size_t used = std::mbrtowc(out, &byte, 1, &state);
      if (used == static_cast<size_t>(-2)) continue;  // the rest of the character is to come
      if (used != static_cast<size_t>(-1)) return 1;
      state = {};
    }
  }

  static unsigned char complete(EditLine* edit, int) {
    const Terminal& self = of(edit);
    const LineInfo* line = ::el_line(edit);
    const std::string_view typed(line->buffer, static_cast<size_t>(line->cursor - line->buffer));
    if (!typed.starts_with('/') || typed.find(' ') != std::string_view::npos) return CC_REFRESH_BEEP;
    std::vector<std::string> found;
    for (const std::string& word : self.words_)
      if (word.starts_with(typed)) found.push_back(word);
    if (found.empty()) return CC_REFRESH_BEEP;
    std::string common = found[0];
    for (const std::string& word : found)
      common.resize(static_cast<size_t>(std::mismatch(common.begin(), common.end(), word.begin(), word.end()).first -
                                        common.begin()));
    if (found.size() == 1) common += ' ';
    if (common.size() > typed.size()) {
      ::el_insertstr(edit, common.c_str() + typed.size());
      return CC_REFRESH;
    }
    std::fputs("\n", self.out_);
    for (const std::string& word : found) std::fprintf(self.out_, "%s  ", word.c_str());
    std::fputs("\n", self.out_);
    return CC_REDISPLAY;
  }

  int open_history(int flags) const {
    if (path_.empty()) return -1;
    if (flags & O_CREAT) {
      const std::filesystem::path folder = std::filesystem::path(path_).parent_path();
      std::error_code ignored;
      std::filesystem::create_directories(folder.parent_path(), ignored);
      ::mkdir(folder.c_str(), 0700);
    }
    return ::open(path_.c_str(), flags | O_CLOEXEC | O_NONBLOCK, 0600);
  }

  // A file that has grown far beyond what is remembered is cut, beside and renamed.
  void read_history() {
    const int file = open_history(O_RDONLY);
    struct stat status {};
    const bool regular = file >= 0 && ::fstat(file, &status) == 0 && S_ISREG(status.st_mode);
    if (file >= 0) ::close(file);
    if (!regular) return;
    std::vector<std::string> lines;
    std::ifstream in(path_, std::ios::binary);
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    const size_t all = lines.size();
    if (all > kRemembered) lines.erase(lines.begin(), lines.end() - kRemembered);
    HistEvent event;
    for (const std::string& line : lines) ::history(history_, &event, H_ENTER, unescaped(line).c_str());
    if (all < 2 * size_t{kRemembered}) return;
    const std::string beside = path_ + "." + std::to_string(::getpid());
    const int cut = ::open(beside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (cut < 0) return;
    bool whole = true;
    for (const std::string& line : lines) {
      const std::string with_end = line + "\n";
      whole = whole && ::write(cut, with_end.data(), with_end.size()) == static_cast<ssize_t>(with_end.size());
    }
    ::close(cut);
    if (!whole || ::rename(beside.c_str(), path_.c_str()) != 0) ::unlink(beside.c_str());
  }

  std::vector<std::string> words_;
  std::string path_;
  FILE* out_ = nullptr;
  EditLine* edit_ = nullptr;
  History* history_ = nullptr;
  const char* prompt_ = "";
  bool stopped_ = false, was_empty_ = false;
};

}  // namespace

std::unique_ptr<LineSource> terminal_source(std::span<const std::string> words, const std::string& history) {
  return std::make_unique<Terminal>(words, history);
}

}  // namespace upg::cli
