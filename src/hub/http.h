// One GET after another over one connection, by libcurl: redirects followed within limits, the token for the hub alone.
// What a server sends may be anything: headers and texts are bounded here, their meaning is checked by callers.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "hub/settings.h"

namespace upg::hub {

/// A request that failed. Another try may help, or not.
class HttpFailure : public std::runtime_error {
 public:
  HttpFailure(const std::string& message, bool again, double wait = 0)
      : std::runtime_error(message), again_(again), wait_(wait) {}
  bool again() const { return again_; }
  double wait() const { return wait_; }  // seconds that the server asks for

 private:
  bool again_;
  double wait_;
};

struct HttpAnswer {
  long status = 0;
  std::map<std::string, std::string> headers;  // by name in lower case; of all redirects on the way, the last one's
  double retry_after = 0;                      // seconds
  bool elsewhere = false;                      // of another origin than the hub's, where a redirect led

  /// Empty where there is none.
  const std::string& header(const std::string& name) const;
};

class Http {
 public:
  /// `stopped` is asked several times a second; true ends a request with Error(kCancelled).
  Http(const Settings& settings, std::function<bool()> stopped);
  ~Http();
  Http(const Http&) = delete;
  Http& operator=(const Http&) = delete;

  /// Takes the body of a final answer in pieces, whatever its status; false: enough of it.
  using Body = std::function<bool(const HttpAnswer&, std::span<const std::byte>)>;

  /// GET, following redirects: eight at most, never from https to http, without the token to any other origin than the
  /// endpoint's. `what` begins messages; URLs are in none, since they may hold signatures. Throws HttpFailure for all
  /// that is no answer, and what `body` throws.
  HttpAnswer get(const std::string& url, const std::vector<std::string>& headers, const Body& body,
                 const std::string& what);

  /// Sleeps; Error(kCancelled) when stopped.
  void wait(double seconds) const;
  void check_stopped() const;

  const Settings& settings() const { return settings_; }

 private:
  struct Transfer;
  Transfer once(const std::string& url, const std::vector<std::string>& headers, const Body& body,
                const std::string& what);

  const Settings& settings_;
  std::function<bool()> stopped_;
  std::string origin_;  // of the endpoint
  void* curl_ = nullptr;
};

/// Tries something that throws HttpFailure again, later each time, as long as that may help and `settings.retries`
/// allow; whenever progress() was called the count begins anew.
class Retries {
 public:
  explicit Retries(const Http& http) : http_(http) {}
  /// Waits, or throws Error(kIo) with the failure's message.
  void after(const HttpFailure& failure);
  void progress() { failed_ = 0; }

 private:
  const Http& http_;
  unsigned failed_ = 0;
};

/// Whether an answer of this status may be another one later.
bool is_temporary(long status);

}  // namespace upg::hub
