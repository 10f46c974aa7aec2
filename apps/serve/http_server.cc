#include "http_server.h"

#include <fmt/format.h>
#include <httplib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <list>
#include <mutex>
#include <thread>
#include <tuple>
#include <utility>

#include "connection.h"
#include "limits.h"
#include "upg/error.h"

namespace upg::serve {
namespace {

// The connections there are, and what they are at. Ordered by who gives up first when there are too many: those between
// requests, then those whose request is still on its way, of which slow ones are the oldest. Those that have only just
// come to it are the last: the next request may be among them.
class Registry {
 public:
  enum class State { kWaiting, kReceiving, kAnswering };
  struct Entry {
    int socket;
    State state = State::kWaiting;
    Connection::Clock::time_point since = Connection::Clock::now();
  };
  using Handle = std::list<Entry>::iterator;

  Handle add(int socket) {
    const std::scoped_lock lock(mutex_);
    if (closed_) ::shutdown(socket, SHUT_RDWR);
    return entries_.insert(entries_.end(), Entry{socket});
  }
  void remove(Handle entry) {
    const std::scoped_lock lock(mutex_);
    entries_.erase(entry);
  }
  void set_state(Handle entry, State state) {
    const std::scoped_lock lock(mutex_);
    entry->state = state;
    entry->since = Connection::Clock::now();
  }
  /// Makes one connection give up; false where all are being answered.
  bool evict() {
    const std::scoped_lock lock(mutex_);
    const auto fresh_from = Connection::Clock::now() - std::chrono::seconds(1);
    const auto rank = [&](const Entry& entry) {
      const bool fresh = entry.since > fresh_from;
      return std::tuple(fresh, fresh ? State::kWaiting : entry.state, entry.since);
    };
    Entry* first = nullptr;
    for (Entry& entry : entries_)
      if (entry.state != State::kAnswering && (first == nullptr || rank(entry) < rank(*first))) first = &entry;
    if (first == nullptr) return false;
    first->state = State::kAnswering;  // not again
    ::shutdown(first->socket, SHUT_RD);
    return true;
  }
  /// Those that still come are cut off as well.
  void shut_all() {
    const std::scoped_lock lock(mutex_);
    closed_ = true;
    for (const Entry& entry : entries_) ::shutdown(entry.socket, SHUT_RDWR);
  }

 private:
  std::mutex mutex_;
  std::list<Entry> entries_;
  bool closed_ = false;
};

// A thread for each connection, up to a limit: a stream may take minutes and must not keep others waiting.
class ConnectionThreads : public httplib::TaskQueue {
 public:
  ConnectionThreads(Registry& registry, size_t limit) : registry_(registry), limit_(limit) {}

  /// Whether the connection that is being accepted is to be refused; of this thread.
  static bool& refusing() {
    thread_local bool value = false;
    return value;
  }

  void enqueue(std::function<void()> job) override {
    {
      std::unique_lock lock(mutex_);
      // One that gives up for this one needs a moment to go, so twice the limit is the real end.
      const bool full = running_ >= limit_ && (running_ >= 2 * limit_ || !registry_.evict());
      if (full) {
        lock.unlock();
        return refuse(job);
      }
      ++running_;
    }
    try {
      std::thread([this, job] {
        job();
        const std::scoped_lock lock(mutex_);
        if (--running_ == 0) ended_.notify_all();
      }).detach();
    } catch (const std::system_error&) {
      {
        const std::scoped_lock lock(mutex_);
        --running_;
      }
      refuse(job);
    }
  }

  void shutdown() override {
    registry_.shut_all();
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [this] { return running_ == 0; });
  }

 private:
  static void refuse(const std::function<void()>& job) {
    refusing() = true;
    job();
    refusing() = false;
  }

  Registry& registry_;
  size_t limit_;
  std::mutex mutex_;
  std::condition_variable ended_;
  size_t running_ = 0;
};

// The connection whose thread this is.
thread_local Connection* current = nullptr;
thread_local Registry::Handle current_entry;
thread_local std::string current_path;

class SinkOf : public EventSink {
 public:
  explicit SinkOf(httplib::DataSink& sink) : sink_(sink) {}
  bool write(std::string_view bytes) override {
    return ok_ = ok_ && sink_.write(bytes.data(), bytes.size()) && !current->gone();
  }

 private:
  httplib::DataSink& sink_;
  bool ok_ = true;
};

}  // namespace

class HttpServer::Impl : public httplib::Server {
 public:
  Impl(const std::string& host, int port, size_t connections, HttpHandlers handlers) : handlers_(std::move(handlers)) {
    new_task_queue = [this, connections] { return new ConnectionThreads(registry_, connections); };
    set_tcp_nodelay(true);
    // httplib would let a second server take the same port.
    set_socket_options([](int socket) {
      const int yes = 1;
      ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    });
    set_payload_max_length(kMaxBodyBytes);
    set_pre_routing_handler([this](const httplib::Request& request, httplib::Response& response) {
      return before_body(request, response) ? HandlerResponse::Handled : HandlerResponse::Unhandled;
    });
    // Routing is done elsewhere: httplib sees one path.
    const auto handle = [this](const httplib::Request& request, httplib::Response& response) {
      registry_.set_state(current_entry, Registry::State::kAnswering);  // all of it has arrived
      give(handlers_.handle(translate(request)), response);
    };
    Get("/", handle);
    Post("/", handle);
    set_error_handler(
        Handler([this](const httplib::Request& request, httplib::Response& response) { complete(request, response); }));
    port_ = port == 0 ? bind_to_any_port(host) : (bind_to_port(host, port) ? port : -1);
    if (port_ < 0)
      throw upg::Error(ErrorCode::kIo, fmt::format("cannot listen on {} port {}: is the address one of this machine's, "
                                                   "and the port free?",
                                                   host, port));
    ::listen(svr_sock_, 512);  // httplib lets five clients wait
  }

  int port() const { return port_; }
  void start() {
    thread_ = std::thread([this] { listen_after_bind(); });
    while (!is_running()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  void finish() {
    if (!thread_.joinable()) return;
    httplib::Server::stop();
    thread_.join();
  }

 private:
  static HttpRequest translate(const httplib::Request& from) {
    HttpRequest to;
    to.method = from.method;
    to.path = current_path;
    to.body = from.body;
    to.client = from.remote_addr;
    to.header = [&from](const char* name) { return from.get_header_value(name); };
    to.gone = [] { return current->gone(); };
    return to;
  }

  static void give(HttpResponse from, httplib::Response& to) {
    to.status = from.status;
    for (const auto& [name, value] : from.headers) to.set_header(name, value);
    if (!from.stream) return to.set_content(from.body, from.type);
    to.set_chunked_content_provider(from.type, [stream = std::move(from.stream)](size_t, httplib::DataSink& sink) {
      SinkOf events(sink);
      stream(events);
      sink.done();
      return true;
    });
  }

  bool before_body(const httplib::Request& request, httplib::Response& response) {
    const auto length = request.get_header_value("Content-Length");
    const bool chunked = request.has_header("Transfer-Encoding");
    const HttpRequest translated = translate(request);
    const auto refuse = [&](int status, const std::string& message) {
      current->close_later();
      give(handlers_.fail(translated, status, message), response);
      return true;
    };
    if (request.get_header_value_count("Content-Length") > 1 || (chunked && !length.empty()))
      return refuse(400, "the request says its length twice");
    if (length.find_first_not_of("0123456789") != std::string::npos || length.size() > 18)
      return refuse(400, "Content-Length is not a number");
    if (!length.empty() && std::stoull(length) > kMaxBodyBytes)
      return refuse(413, fmt::format("the body has {} bytes, {} are the limit", length, kMaxBodyBytes));
    if (auto refused = handlers_.check(translated)) {
      if (chunked || (!length.empty() && length != "0")) current->close_later();
      give(*std::move(refused), response);
      return true;
    }
    if (request.method != "POST") return false;
    if (request.has_header("Content-Encoding"))
      return refuse(415, "a body with a Content-Encoding is not taken: send it as it is");
    if (!chunked && length.empty()) return refuse(411, "the request needs a body, and a Content-Length");
    return false;
  }

  // Errors that httplib finds by itself have no body yet.
  void complete(const httplib::Request& request, httplib::Response& response) const {
    if (!response.body.empty() || response.content_provider_) return;
    current->close_later();
    const int status = current->too_large() ? 413 : current->too_slow() ? 408 : response.status;
    const char* message = status == 413   ? "the body is longer than the limit"
                          : status == 408 ? "the body took too long to arrive"
                                          : "the request is not valid HTTP, or its body broke off";
    give(handlers_.fail(translate(request), status, message), response);
  }

  bool process_and_close_socket(int socket) override {
    Connection connection(socket);
    if (ConnectionThreads::refusing()) {
      connection.answer(503, "Service Unavailable", "too many connections");
      return ::close(socket) == 0;
    }
    const Registry::Handle entry = registry_.add(socket);
    current = &connection;
    current_entry = entry;
    bool gently = false;  // where a response may be on its way
    for (bool going = true; going;) {
      const Connection::Wait wait = connection.wait_for_request([&] {
        registry_.set_state(entry, Registry::State::kReceiving);
        return true;
      });
      if (wait == Connection::Wait::kTooLarge)
        connection.answer(431, "Request Header Fields Too Large", "the headers are longer than the limit");
      if (wait == Connection::Wait::kTimeout) connection.answer(408, "Request Timeout", "the headers took too long");
      gently = wait != Connection::Wait::kClosed;
      if (wait != Connection::Wait::kReady) break;
      current_path.clear();
      bool closed = false;
      going = process_request(connection, /*close_connection=*/false, closed, [](httplib::Request& request) {
        current_path = request.path;
        request.path = "/";
      });
      going = going && !closed && !connection.must_close() && svr_sock_ >= 0;
      registry_.set_state(entry, Registry::State::kWaiting);
    }
    current = nullptr;
    registry_.remove(entry);
    if (gently)
      connection.close_gently();
    else
      ::close(socket);
    return true;
  }

  HttpHandlers handlers_;
  Registry registry_;
  std::thread thread_;
  int port_ = -1;
};

HttpServer::HttpServer(const std::string& host, int port, size_t connections, HttpHandlers handlers)
    : impl_(std::make_unique<Impl>(host, port, connections, std::move(handlers))) {}
HttpServer::~HttpServer() { stop(); }
int HttpServer::port() const { return impl_->port(); }
void HttpServer::start() { impl_->start(); }
void HttpServer::stop() { impl_->finish(); }

}  // namespace upg::serve
