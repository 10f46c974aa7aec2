#include "hub/http.h"

#include <curl/curl.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "hub/model_name.h"

namespace upg::hub {
namespace {

constexpr int kMaxRedirects = 8;
constexpr size_t kMaxHeaders = 200, kMaxHeaderBytes = 64 << 10;
constexpr double kFirstWait = 0.5, kLongestWait = 30, kLongestAsked = 600;  // seconds

using Url = std::unique_ptr<CURLU, void (*)(CURLU*)>;

Url parse_url(const std::string& text) {
  Url url(curl_url(), curl_url_cleanup);
  if (!url || curl_url_set(url.get(), CURLUPART_URL, text.c_str(), CURLU_DISALLOW_USER) != CURLUE_OK) url.reset();
  return url;
}

std::string part(const Url& url, CURLUPart which) {
  char* text = nullptr;
  const unsigned flags = which == CURLUPART_PORT ? CURLU_DEFAULT_PORT : 0;
  if (curl_url_get(url.get(), which, &text, flags) != CURLUE_OK) return {};
  std::string copy(text);
  curl_free(text);
  return copy;
}

std::string origin_of(const Url& url) {
  return part(url, CURLUPART_SCHEME) + "://" + part(url, CURLUPART_HOST) + ":" + part(url, CURLUPART_PORT);
}

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

}  // namespace

const std::string& HttpAnswer::header(const std::string& name) const {
  static const std::string kNone;
  const auto found = headers.find(name);
  return found == headers.end() ? kNone : found->second;
}

// What libcurl calls back into; nothing may be thrown through it.
struct Http::Transfer {
  HttpAnswer answer;
  std::string location;
  const Body* body = nullptr;
  const std::function<bool()>* stopped = nullptr;
  std::exception_ptr thrown;
  size_t header_bytes = 0;
  std::chrono::steady_clock::time_point asked{};
  bool enough = false;

  bool is_redirect() const { return answer.status >= 300 && answer.status < 400 && !location.empty(); }

  static size_t take_header(char* data, size_t size, size_t n, void* self) {
    auto& t = *static_cast<Transfer*>(self);
    std::string_view line(data, size * n);
    if (line.starts_with("HTTP/")) {  // an informal answer may precede the real one
      t.answer.headers.clear();
      t.location.clear();
      t.answer.status = 0;
      const size_t space = line.find(' ');
      if (space != std::string_view::npos) t.answer.status = std::strtol(data + space, nullptr, 10);
      return line.size();
    }
    t.header_bytes += line.size();
    if (t.header_bytes > kMaxHeaderBytes || t.answer.headers.size() > kMaxHeaders) return 0;
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) return line.size();
    std::string name(line.substr(0, colon));
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    t.answer.headers[name] = trimmed(line.substr(colon + 1));
    t.location = t.answer.header("location");
    return line.size();
  }

  static size_t take_body(char* data, size_t size, size_t n, void* self) {
    auto& t = *static_cast<Transfer*>(self);
    if (t.is_redirect() || t.body == nullptr) return size * n;
    try {
      if ((*t.body)(t.answer, std::as_bytes(std::span(data, size * n)))) return size * n;
      t.enough = true;
    } catch (...) {
      t.thrown = std::current_exception();
    }
    return 0;
  }

  static int ask(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    auto& t = *static_cast<Transfer*>(self);
    const auto now = std::chrono::steady_clock::now();
    if (now - t.asked < std::chrono::milliseconds(100)) return 0;
    t.asked = now;
    return (*t.stopped)() ? 1 : 0;
  }
};

Http::Http(const Settings& settings, std::function<bool()> stopped)
    : settings_(settings), stopped_(std::move(stopped)) {
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
  const Url url = parse_url(settings.endpoint);
  if (!url || part(url, CURLUPART_HOST).empty())
    fail(ErrorCode::kInvalidArgument, "the hub's endpoint {} is no address: it must be https://HOST",
         printable(settings.endpoint));
  origin_ = origin_of(url);
  curl_ = curl_easy_init();
  if (curl_ == nullptr) throw std::bad_alloc();
}

Http::~Http() { curl_easy_cleanup(static_cast<CURL*>(curl_)); }

void Http::check_stopped() const {
  if (stopped_()) fail(ErrorCode::kCancelled, "the download was cancelled; the same command goes on with it");
}

void Http::wait(double seconds) const {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  for (;;) {
    check_stopped();
    const auto now = Clock::now();
    if (now >= end) return;
    std::this_thread::sleep_for(std::min<std::chrono::duration<double>>(end - now, std::chrono::milliseconds(100)));
  }
}

Http::Transfer Http::once(const std::string& url, const std::vector<std::string>& headers, const Body& body,
                          const std::string& what) {
  auto* curl = static_cast<CURL*>(curl_);
  Transfer transfer;
  transfer.body = &body;
  transfer.stopped = &stopped_;
  curl_slist* list = nullptr;
  const auto add = [&](const std::string& line) { list = curl_slist_append(list, line.c_str()); };
  for (const std::string& line : headers) add(line);
  const Url parsed = parse_url(url);
  if (!parsed) throw HttpFailure(what + ": the hub leads to an address that is none", false);
  const std::string scheme = part(parsed, CURLUPART_SCHEME);
  if (scheme != "https" && scheme != "http")
    throw HttpFailure(fmt::format("{}: the hub leads to {:?}, which is not https", what, printable(scheme, 20)), false);
  if (!settings_.token.empty() && origin_of(parsed) == origin_) add("Authorization: Bearer " + settings_.token);
  add("Accept-Encoding: identity");
  const std::unique_ptr<curl_slist, void (*)(curl_slist*)> owner(list, curl_slist_free_all);

  char reason[CURL_ERROR_SIZE] = {};
  curl_easy_reset(curl);  // connections stay open
  curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, list);
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "upg/" UPG_VERSION);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);  // done here, where the token is looked after
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, settings_.timeout);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, settings_.timeout);
  curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 512L << 10);
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, reason);
  curl_easy_setopt(curl, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);  // of a proxy
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, Transfer::take_header);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, Transfer::take_body);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, Transfer::ask);
  curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &transfer);
  if (!settings_.ca_file.empty()) curl_easy_setopt(curl, CURLOPT_CAINFO, settings_.ca_file.c_str());
  const CURLcode code = curl_easy_perform(curl);

  curl_off_t retry_after = 0;
  curl_easy_getinfo(curl, CURLINFO_RETRY_AFTER, &retry_after);
  transfer.answer.retry_after = static_cast<double>(std::max<curl_off_t>(0, retry_after));
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, nullptr);
  if (transfer.thrown) std::rethrow_exception(transfer.thrown);
  if (code == CURLE_OK || transfer.enough) return transfer;
  check_stopped();
  const std::string said = printable(*reason ? reason : curl_easy_strerror(code));
  const bool hopeless = code == CURLE_SSL_CACERT_BADFILE || code == CURLE_PEER_FAILED_VERIFICATION ||
                        code == CURLE_COULDNT_RESOLVE_PROXY || code == CURLE_UNSUPPORTED_PROTOCOL;
  throw HttpFailure(fmt::format("{}: {}", what, said), !hopeless);
}

HttpAnswer Http::get(const std::string& url, const std::vector<std::string>& headers, const Body& body,
                     const std::string& what) {
  std::string at = url;
  std::map<std::string, std::string> of_redirects;
  for (int redirects = 0;; ++redirects) {
    check_stopped();
    Transfer transfer = once(at, headers, body, what);
    if (!transfer.is_redirect()) {
      // The hub says of a file what it is, and then leads to another host that has it.
      for (auto& [name, value] : of_redirects) transfer.answer.headers.try_emplace(name, value);
      transfer.answer.elsewhere = origin_of(parse_url(at)) != origin_;
      return std::move(transfer.answer);
    }
    if (redirects == kMaxRedirects)
      throw HttpFailure(fmt::format("{}: the hub leads from address to address, {} times", what, redirects), false);
    for (const auto& [name, value] : transfer.answer.headers)
      if (name.starts_with("x-")) of_redirects[name] = value;
    const Url base = parse_url(at);
    const bool was_https = part(base, CURLUPART_SCHEME) == "https";
    if (curl_url_set(base.get(), CURLUPART_URL, transfer.location.c_str(), CURLU_DISALLOW_USER) != CURLUE_OK)
      throw HttpFailure(what + ": the hub leads to an address that is none", false);
    if (was_https && part(base, CURLUPART_SCHEME) != "https")
      throw HttpFailure(what + ": the hub leads from https to an address that is not encrypted", false);
    at = part(base, CURLUPART_URL);
  }
}

bool is_temporary(long status) { return status == 408 || status == 425 || status == 429 || status >= 500; }

void Retries::after(const HttpFailure& failure) {
  if (!failure.again()) fail(ErrorCode::kIo, "{}", failure.what());
  const unsigned retries = http_.settings().retries;
  if (failed_ >= retries) {
    const std::string tried = retries > 0 ? fmt::format(" (tried {} times)", retries + 1) : "";
    fail(ErrorCode::kIo, "{}{}; the same command goes on with what has come", failure.what(), tried);
  }
  if (failure.wait() > kLongestAsked)
    fail(ErrorCode::kIo, "{}, and asks to wait for {:.0f} seconds; try again after that", failure.what(),
         failure.wait());
  const double own = std::min(kLongestWait, kFirstWait * std::exp2(std::min(failed_, 20U)));
  ++failed_;
  http_.wait(failure.wait() > 0 ? failure.wait() : own);
}

}  // namespace upg::hub
