#include "logprobs.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace upg::serve {
namespace {

// JSON has no infinity: what cannot happen is less likely than anything.
double finite(float logprob) { return std::isfinite(logprob) ? logprob : -9999.0; }

bool is_utf8(const std::string& bytes) {
  try {
    (void)Json(bytes).dump();
    return true;
  } catch (const Json::exception&) {
    return false;
  }
}

// A token may be a part of a character: its bytes are then told as OpenAI tells them.
std::string token_text(const std::string& bytes) {
  if (is_utf8(bytes)) return bytes;
  std::string text = "bytes:";
  for (unsigned char byte : bytes) text += fmt::format("\\x{:02x}", byte);
  return text;
}

Json token_entry(const Engine& engine, int32_t token, float logprob) {
  const std::string bytes = engine.token_bytes(token);
  Json list = Json::array();
  for (unsigned char byte : bytes) list.push_back(byte);
  return {{"token", bytes}, {"logprob", finite(logprob)}, {"bytes", std::move(list)}};
}

}  // namespace

Json chat_logprobs(const Engine& engine, const std::vector<TokenLogprob>& logprobs, uint32_t top) {
  Json content = Json::array();
  for (const TokenLogprob& entry : logprobs) {
    Json json = token_entry(engine, entry.token, entry.logprob);
    json["top_logprobs"] = Json::array();
    for (size_t i = 0; i < std::min<size_t>(top, entry.top.size()); ++i)
      json["top_logprobs"].push_back(token_entry(engine, entry.top[i].first, entry.top[i].second));
    content.push_back(std::move(json));
  }
  return content;
}

void CompletionLogprobs::add_token(int32_t token) {
  const std::string bytes = engine_.token_bytes(token);
  tokens_.push_back(token_text(bytes));
  offsets_.push_back(offset_);
  // Bytes that begin a character: all but those that go on with one.
  offset_ +=
      static_cast<uint64_t>(std::count_if(bytes.begin(), bytes.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

void CompletionLogprobs::add_first(int32_t token) {
  add_token(token);
  values_.push_back(nullptr);
  tops_.push_back(nullptr);
}

void CompletionLogprobs::add(const std::vector<TokenLogprob>& logprobs) {
  for (const TokenLogprob& entry : logprobs) {
    add_token(entry.token);
    values_.push_back(finite(entry.logprob));
    Json top = Json::object();
    for (size_t i = 0; i < std::min<size_t>(top_, entry.top.size()); ++i) {
      const std::string name = token_text(engine_.token_bytes(entry.top[i].first));
      if (!top.contains(name)) top[name] = finite(entry.top[i].second);
    }
    tops_.push_back(std::move(top));
  }
}

Json CompletionLogprobs::take() {
  Json json = {{"tokens", std::move(tokens_)},
               {"token_logprobs", std::move(values_)},
               {"top_logprobs", std::move(tops_)},
               {"text_offset", std::move(offsets_)}};
  tokens_ = values_ = tops_ = offsets_ = Json::array();
  return json;
}

}  // namespace upg::serve
