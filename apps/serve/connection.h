// One TCP connection as httplib reads and writes it. Bounds what httplib does not: the size of the headers, the time
// they and the body may take, the size of a body sent in chunks. Knows whether the client has left.
#pragma once

#include <httplib.h>

#include <atomic>
#include <chrono>
#include <string>

namespace upg::serve {

class Connection : public httplib::Stream {
 public:
  using Clock = std::chrono::steady_clock;
  enum class Wait { kReady, kClosed, kTooLarge, kTimeout };

  explicit Connection(int socket);

  /// Waits for the next request until its headers are all there. `on_first_byte` is called when it begins to come;
  /// false gives the connection up.
  Wait wait_for_request(const std::function<bool()>& on_first_byte);
  /// A small response of the connection's own, in place of httplib's.
  void answer(int status, const char* reason, std::string_view message);
  /// Closes so that the client can still read the response to a request whose body was not read.
  void close_gently();

  /// Whether the client has closed its end.
  bool gone() const;
  /// A body that was longer than the limit, or too slow: why reading it ended.
  bool too_large() const { return too_large_; }
  bool too_slow() const { return too_slow_; }
  /// After this request.
  void close_later() { close_later_ = true; }
  bool must_close() const { return close_later_ || broken_ || too_large_ || too_slow_; }

  bool is_readable() const override { return at_ < buffer_.size() || !gone(); }
  bool is_writable() const override { return !broken_ && !gone(); }
  ssize_t read(char* to, size_t size) override;
  ssize_t write(const char* from, size_t size) override;
  void get_remote_ip_and_port(std::string& ip, int& port) const override;
  void get_local_ip_and_port(std::string& ip, int& port) const override;
  int socket() const override { return socket_; }

 private:
  enum class Receive { kSome, kEnd, kTimeout };
  Receive receive(Clock::time_point deadline);
  void drop_headers();

  int socket_;
  std::string buffer_;  // received
  size_t at_ = 0;       // of which httplib has read so much
  size_t head_ = 0;     // the end of the headers in it
  uint64_t taken_ = 0;  // bytes of the body that httplib has read
  Clock::time_point deadline_{};
  bool broken_ = false, too_large_ = false, too_slow_ = false, close_later_ = false;
};

}  // namespace upg::serve
