#include "grammar/bounded.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <new>

#include "base/error.h"

namespace upg::grammar {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr char kDone = 'd', kError = 'e', kMemory = 'm';

void limit(int resource, uint64_t value) {
  rlimit now{};
  if (getrlimit(resource, &now) != 0) return;
  now.rlim_cur = std::min<rlim_t>(now.rlim_max, value);
  setrlimit(resource, &now);
}

uint64_t address_space() {
  std::array<char, 64> text{};
  const int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  const ssize_t n = read(file, text.data(), text.size() - 1);
  close(file);
  return n <= 0 ? 0 : std::strtoull(text.data(), nullptr, 10) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

void say(int pipe, char outcome, std::string_view message) {
  std::string all(1, outcome);
  all += message.substr(0, 4000);  // a pipe takes that much at once
  while (write(pipe, all.data(), all.size()) < 0 && errno == EINTR) {
  }
}

[[noreturn]] void child(int pipe, const Bounds& bounds, const std::function<void()>& work) {
  for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGPIPE}) ::signal(signal, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  // Connections of a server must close when it closes them.
#if defined(SYS_close_range)
  syscall(SYS_close_range, 3U, static_cast<unsigned>(pipe) - 1, 0);
  syscall(SYS_close_range, static_cast<unsigned>(pipe) + 1, ~0U, 0);
#else
  const long files = std::min(sysconf(_SC_OPEN_MAX), 4096L);
  for (int file = 3; file < files; ++file)
    if (file != pipe) close(file);
#endif
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_CPU, static_cast<uint64_t>(std::ceil(bounds.seconds * bounds.threads)) + 1);
  if (const uint64_t now = address_space(); now != 0) limit(RLIMIT_AS, now + bounds.memory);
  try {
    work();
    say(pipe, kDone, {});
  } catch (const std::bad_alloc&) {
    say(pipe, kMemory, {});
  } catch (const std::exception& error) {
    say(pipe, kError, error.what());
  } catch (...) {
    say(pipe, kError, "an unknown error");
  }
  _exit(0);
}

// All that comes until the other end closes; false after `deadline`.
bool read_all(int pipe, steady_clock::time_point deadline, std::string& text) {
  while (true) {
    const auto left = std::chrono::duration_cast<milliseconds>(deadline - steady_clock::now()).count();
    if (left <= 0) return false;
    pollfd waits{pipe, POLLIN, 0};
    const int ready = poll(&waits, 1, static_cast<int>(left));
    if (ready == 0 || (ready < 0 && errno == EINTR)) continue;
    std::array<char, 4096> buffer{};
    const ssize_t n = read(pipe, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return true;
    text.append(buffer.data(), static_cast<size_t>(n));
  }
}

}  // namespace

void try_bounded(const Bounds& bounds, const std::string& what, const std::function<void()>& work) {
  int ends[2];
  if (pipe(ends) != 0) fail(ErrorCode::kOutOfMemory, "{} could not be tried: {}", what, std::strerror(errno));
  fcntl(ends[0], F_SETFD, FD_CLOEXEC);
  fcntl(ends[1], F_SETFD, FD_CLOEXEC);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // the program's handlers must not run in the child
  const pid_t process = fork();
  if (process == 0) child(ends[1], bounds, work);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  const int error = errno;
  close(ends[1]);
  if (process < 0) {
    close(ends[0]);
    fail(ErrorCode::kOutOfMemory, "{} could not be tried: {}", what, std::strerror(error));
  }
  std::string text;
  const auto deadline = steady_clock::now() + std::chrono::duration_cast<steady_clock::duration>(
                                                  std::chrono::duration<double>(bounds.seconds));
  const bool in_time = read_all(ends[0], deadline, text);
  close(ends[0]);
  if (!in_time) kill(process, SIGKILL);
  int status = 0;
  while (waitpid(process, &status, 0) < 0 && errno == EINTR) {
  }
  if (!in_time)
    fail(ErrorCode::kInvalidArgument, "{} takes longer than {:g} s to compile: make it smaller", what, bounds.seconds);
  if (!text.empty() && text[0] == kDone) return;
  if (!text.empty() && text[0] == kMemory)
    fail(ErrorCode::kInvalidArgument, "{} takes more than {} MiB to compile: make it smaller", what,
         bounds.memory >> 20);
  if (!text.empty() && text[0] == kError) fail(ErrorCode::kInvalidArgument, "{}", text.substr(1));
  fail(ErrorCode::kInvalidArgument,
       "{} nests too deeply, takes too much memory or breaks the compiler of grammars: make it simpler", what);
}

}  // namespace upg::grammar
