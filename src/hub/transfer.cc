#include "hub/transfer.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"

namespace upg::hub {
namespace {

constexpr uint64_t kProgress = 64 << 10;  // bytes further than ever before, for the count of failures to begin anew

std::optional<uint64_t> read_number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool is_strong(const std::string& etag) { return etag.starts_with('"') && etag.size() > 2; }

std::string unquoted(std::string etag) {
  if (etag.starts_with("W/")) etag.erase(0, 2);
  std::erase(etag, '"');
  return etag;
}

class Fetch {
 public:
  Fetch(Http& http, RangeTransfer& transfer)
      : http_(http), t_(transfer), what_(fmt::format("{}: {}", transfer.name.id, transfer.file.name)) {}

  void run() {
    furthest_ = t_.at;
    for (Retries retries(http_); t_.at < t_.end;) {
      try {
        attempt();
      } catch (const HttpFailure& failure) {
        if (t_.at > furthest_ + kProgress) {
          furthest_ = t_.at;
          retries.progress();
        }
        retries.after(failure);
      }
    }
  }

 private:
  void attempt() {
    ranged_ = t_.at > 0 || t_.end < t_.file.bytes;
    begun_ = false;
    std::vector<std::string> headers;
    if (ranged_) headers.push_back(fmt::format("Range: bytes={}-{}", t_.at, t_.end - 1));
    if (ranged_ && is_strong(etag_)) headers.push_back("If-Range: " + etag_);
    const HttpAnswer answer = http_.get(
        file_url(http_.settings(), t_.name, t_.commit, t_.file.name), headers,
        [&](const HttpAnswer& now, std::span<const std::byte> data) { return take(now, data); }, what_);
    begin(answer);  // an answer without a body
    if (t_.at < t_.end)
      throw HttpFailure(fmt::format("{}: the connection ended after {} of {} bytes", what_, t_.at, t_.end), true);
  }

  bool take(const HttpAnswer& answer, std::span<const std::byte> data) {
    if (answer.status != 200 && answer.status != 206) return true;  // the page of an error
    begin(answer);
    if (data.size() > t_.end - t_.at) {
      if (t_.end == t_.file.bytes || ranged_answer_)
        throw HttpFailure(fmt::format("{}: the hub sends more than the {} bytes it has", what_, t_.file.bytes), false);
      data = data.first(t_.end - t_.at);  // all of the file, of which only the beginning is wanted
    }
    t_.write(t_.at, data);
    t_.at += data.size();
    return t_.at < t_.end || t_.end == t_.file.bytes || ranged_answer_;
  }

  // Once for each answer: is it the file, and from where on?
  void begin(const HttpAnswer& answer) {
    if (begun_) return;
    begun_ = true;
    if (answer.status == 416) return again("the hub does not have the rest of the file");
    if (answer.status != 200 && answer.status != 206) refuse(answer, t_.name, http_.settings(), what_);
    check_identity(answer);
    const std::string& etag = answer.header("etag");
    if (!etag_.empty() && !etag.empty() && etag != etag_ && t_.at > t_.begin) {
      etag_.clear();
      return again("the file has changed at the hub");
    }
    etag_ = etag;
    ranged_answer_ = answer.status == 206;
    if (ranged_answer_) {
      const auto range = parse_content_range(answer.header("content-range"));
      if (!ranged_ || !range || range->begin != t_.at || range->end > t_.end ||
          range->total.value_or(t_.file.bytes) != t_.file.bytes)
        throw HttpFailure(fmt::format("{}: the hub sends another range than asked for, {:?}", what_,
                                      printable(answer.header("content-range"))),
                          true);
    } else if (t_.at > 0) {
      if (t_.begin > 0)
        throw HttpFailure(fmt::format("{}: the hub does not send ranges of a file, which --stream needs", what_),
                          false);
      back();
    }
    const uint64_t due = ranged_answer_ ? t_.end - t_.at : t_.file.bytes - t_.at;
    const std::string& length = answer.header("content-length");
    if (!length.empty() && read_number(length) != due)
      throw HttpFailure(
          fmt::format("{}: the hub says it sends {} bytes, its list says {}", what_, printable(length, 24), due), true);
    const std::string& encoding = answer.header("content-encoding");
    if (!encoding.empty() && encoding != "identity")
      throw HttpFailure(fmt::format("{}: the hub sends it encoded, as {:?}", what_, printable(encoding, 24)), false);
  }

  // The hub's own word on the file, where it gives it, must be that of its list.
  void check_identity(const HttpAnswer& answer) {
    const std::string& commit = answer.header("x-repo-commit");
    const std::string linked = unquoted(answer.header("x-linked-etag"));
    const std::string& size = answer.header("x-linked-size");
    if ((!commit.empty() && commit != t_.commit) || (!linked.empty() && linked != t_.file.hash) ||
        (!size.empty() && read_number(size) != t_.file.bytes))
      fail(ErrorCode::kInvalidFile, "{}: the hub sends another file than its list of commit {} has; try again", what_,
           t_.commit);
  }

  void back() {
    t_.at = t_.begin;
    t_.restart();
  }

  void again(const char* why) {
    back();
    throw HttpFailure(fmt::format("{}: {}", what_, why), true);
  }

  Http& http_;
  RangeTransfer& t_;
  std::string what_, etag_;
  uint64_t furthest_ = 0;
  bool ranged_ = false, ranged_answer_ = false, begun_ = false;
};

}  // namespace

void fetch(Http& http, RangeTransfer transfer) { Fetch(http, transfer).run(); }

std::optional<ContentRange> parse_content_range(std::string_view header) {
  constexpr std::string_view kUnit = "bytes ";
  const size_t dash = header.find('-'), slash = header.find('/');
  if (!header.starts_with(kUnit) || dash == std::string_view::npos || slash == std::string_view::npos || slash < dash)
    return std::nullopt;
  const auto first = read_number(header.substr(kUnit.size(), dash - kUnit.size()));
  const auto last = read_number(header.substr(dash + 1, slash - dash - 1));
  const std::string_view total = header.substr(slash + 1);
  ContentRange range;
  if (!first || !last || *last < *first || *last == UINT64_MAX) return std::nullopt;
  range.begin = *first;
  range.end = *last + 1;
  if (total == "*") return range;
  range.total = read_number(total);
  return range.total ? std::optional(range) : std::nullopt;
}

}  // namespace upg::hub
