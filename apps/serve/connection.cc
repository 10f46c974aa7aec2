#include "connection.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "limits.h"

namespace upg::serve {
namespace {

// False at the deadline.
bool wait_until(int socket, short events, Connection::Clock::time_point deadline) {
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Connection::Clock::now()).count();
    pollfd entry{socket, events, 0};
    const int ready = ::poll(&entry, 1, static_cast<int>(std::clamp<int64_t>(left, 0, 600'000)));
    if (ready > 0) return true;
    if (ready == 0 && left <= 0) return false;
    if (ready < 0 && errno != EINTR) return true;  // the call that follows says what is wrong
  }
}

void name_end(int socket, int (*ask)(int, sockaddr*, socklen_t*), std::string& ip, int& port) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (ask(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) return;
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&address);
    ::inet_ntop(AF_INET, &v4->sin_addr, text, sizeof(text));
    port = ntohs(v4->sin_port);
  } else if (address.ss_family == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&address);
    ::inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof(text));
    port = ntohs(v6->sin6_port);
  }
  ip = text;
}

bool starts_with_name(std::string_view line, std::string_view name) {
  return line.size() > name.size() && line[name.size()] == ':' &&
         std::equal(name.begin(), name.end(), line.begin(),
                    [](char a, char b) { return a == (b >= 'A' && b <= 'Z' ? b + ('a' - 'A') : b); });
}

}  // namespace

Connection::Connection(int socket) : socket_(socket) {}

Connection::Receive Connection::receive(Clock::time_point deadline) {
  if (!wait_until(socket_, POLLIN, deadline)) return Receive::kTimeout;
  char bytes[16384];
  ssize_t got = 0;
  do {
    got = ::recv(socket_, bytes, sizeof(bytes), 0);
  } while (got < 0 && errno == EINTR);
  if (got <= 0) return Receive::kEnd;
  buffer_.append(bytes, static_cast<size_t>(got));
  return Receive::kSome;
}

// A response is never a part of a file and never compressed, so httplib need not parse what asks for that; it would
// parse ranges by a regular expression that takes a stack as deep as the header is long.
void Connection::drop_headers() {
  std::string kept;
  for (size_t line = 0; line < head_;) {
    const size_t end = buffer_.find("\r\n", line) + 2;
    const std::string_view text = std::string_view(buffer_).substr(line, end - line);
    if (!starts_with_name(text, "range") && !starts_with_name(text, "accept-encoding")) kept += text;
    line = end;
  }
  buffer_.replace(0, head_, kept);
  head_ = kept.size();
}

Connection::Wait Connection::wait_for_request(const std::function<bool()>& on_first_byte) {
  buffer_.erase(0, at_);  // what is left belongs to the next request
  at_ = taken_ = 0;
  Clock::time_point deadline = Clock::now() + kIdleTime;
  bool begun = false;
  for (size_t searched = 0;;) {
    if (!begun && !buffer_.empty()) {
      if (!on_first_byte()) return Wait::kClosed;
      begun = true;
      deadline = Clock::now() + kHeaderTime;
    }
    const size_t end = buffer_.find("\r\n\r\n", searched);
    if (end != std::string::npos && end + 4 <= kMaxHeaderBytes) {
      head_ = end + 4;
      break;
    }
    if (buffer_.size() > kMaxHeaderBytes) return Wait::kTooLarge;
    searched = buffer_.size() < 3 ? 0 : buffer_.size() - 3;
    const Receive received = receive(deadline);
    if (received == Receive::kEnd) return Wait::kClosed;
    if (received == Receive::kTimeout) return begun ? Wait::kTimeout : Wait::kClosed;
  }
  drop_headers();
  deadline_ = Clock::now() + kBodyTime;
  return Wait::kReady;
}

ssize_t Connection::read(char* to, size_t size) {
  if (too_large_ || too_slow_) return -1;
  if (at_ == buffer_.size()) {
    buffer_.clear();
    at_ = head_ = 0;
    const Receive received = receive(deadline_);
    too_slow_ = received == Receive::kTimeout;
    if (received != Receive::kSome) return received == Receive::kEnd ? 0 : -1;
  }
  const size_t limit = at_ < head_ ? head_ - at_ : buffer_.size() - at_;
  const size_t n = std::min(size, limit);
  if (at_ >= head_ && (taken_ += n) > kMaxBodyBytes + kMaxBodyBytes / 8) {  // an eighth for the marks of chunks
    too_large_ = true;
    return -1;
  }
  std::memcpy(to, buffer_.data() + at_, n);
  at_ += n;
  return static_cast<ssize_t>(n);
}

ssize_t Connection::write(const char* from, size_t size) {
  if (broken_) return -1;
  for (size_t sent = 0; sent < size;) {
    const ssize_t n = ::send(socket_, from + sent, size - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
      sent += static_cast<size_t>(n);
    } else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      if (!wait_until(socket_, POLLOUT, Clock::now() + kWriteTime)) {
        broken_ = true;
        return -1;
      }
    } else if (!(n < 0 && errno == EINTR)) {
      broken_ = true;
      return -1;
    }
  }
  return static_cast<ssize_t>(size);
}

bool Connection::gone() const {
  char byte = 0;
  const ssize_t n = ::recv(socket_, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

void Connection::answer(int status, const char* reason, std::string_view message) {
  const std::string body = fmt::format(R"({{"error":{{"message":"{}","type":"{}","param":null,"code":null}}}})",
                                       message, status >= 500 ? "server_error" : "invalid_request_error");
  const std::string text = fmt::format(
      "HTTP/1.1 {} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n{}\r\n{}", status,
      reason, body.size(), status == 503 ? "Retry-After: 1\r\n" : "", body);
  ::send(socket_, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

void Connection::close_gently() {
  ::shutdown(socket_, SHUT_WR);
  // Closing with bytes unread would reset the connection, and the response might be lost with it.
  const Clock::time_point deadline = Clock::now() + std::chrono::seconds(1);
  size_t left = 2 * kMaxBodyBytes;
  char bytes[16384];
  while (left > 0 && Clock::now() < deadline && wait_until(socket_, POLLIN, deadline)) {
    const ssize_t n = ::recv(socket_, bytes, std::min(sizeof(bytes), left), MSG_DONTWAIT);
    if (n <= 0) break;
    left -= static_cast<size_t>(n);
  }
  ::close(socket_);
}

void Connection::get_remote_ip_and_port(std::string& ip, int& port) const {
  name_end(socket_, ::getpeername, ip, port);
}

void Connection::get_local_ip_and_port(std::string& ip, int& port) const { name_end(socket_, ::getsockname, ip, port); }

}  // namespace upg::serve
