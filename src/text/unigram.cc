// The best path over the positions of a piece; the tokens that begin at one are found by a trie. Which of two equal
// paths counts follows Hugging Face tokenizers: the first found, from the earlier position on.
#include "text/unigram.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/error.h"
#include "text/tokenizer_json.h"
#include "text/unicode.h"

namespace upg {
namespace {

using nlohmann::json;

constexpr int32_t kNone = -1;
constexpr double kUnknownPenalty = 10;
constexpr size_t kMaxUnigramTokenBytes = 1 << 12;  // a step of the search for each, at every position

// The tokens by their bytes. Children of a node lie side by side, sorted by label.
class Trie {
 public:
  struct Node {
    uint32_t children = 0;  // index of the first
    uint16_t count = 0;
    uint8_t label = 0;
    int32_t id = kNone;
  };

  explicit Trie(const std::vector<std::string_view>& tokens) {
    std::vector<int32_t> sorted(tokens.size());
    std::iota(sorted.begin(), sorted.end(), 0);
    std::stable_sort(sorted.begin(), sorted.end(), [&](int32_t a, int32_t b) {
      return tokens[static_cast<size_t>(a)] < tokens[static_cast<size_t>(b)];
    });
    struct Range {
      size_t begin, end, depth;
    };
    std::vector<Range> ranges = {{0, sorted.size(), 0}};  // of the node of the same index
    nodes_.emplace_back();
    for (size_t node = 0; node < nodes_.size(); ++node) {  // nodes are added while they are walked
      auto [begin, end, depth] = ranges[node];
      const auto token = [&](size_t i) { return tokens[static_cast<size_t>(sorted[i])]; };
      for (; begin < end && token(begin).size() == depth; ++begin) nodes_[node].id = sorted[begin];  // the last counts
      nodes_[node].children = static_cast<uint32_t>(nodes_.size());
      while (begin < end) {
        const char label = token(begin)[depth];
        size_t next = begin;
        while (next < end && token(next)[depth] == label) ++next;
        nodes_.push_back({.label = static_cast<uint8_t>(label)});
        ranges.push_back({begin, next, depth + 1});
        ++nodes_[node].count;
        begin = next;
      }
    }
  }

  const Node& root() const { return nodes_[0]; }
  const Node* child(const Node& node, uint8_t label) const {
    const auto begin = nodes_.begin() + node.children;
    const auto found = std::lower_bound(begin, begin + node.count, label,
                                        [](const Node& child, uint8_t wanted) { return child.label < wanted; });
    return found == begin + node.count || found->label != label ? nullptr : &*found;
  }

 private:
  std::vector<Node> nodes_;
};

// The best way to a position.
struct Step {
  double score = 0;
  uint32_t begin = std::numeric_limits<uint32_t>::max();  // of its last token; this value for no way yet
  int32_t id = kNone;
};

class Unigram final : public TokenModel {
 public:
  Unigram(const json& object, std::string_view where)
      : where_(where), tokens_(read_tokens(object, where)), trie_(tokens_) {
    vocabulary_.assign(tokens_);
    const json& unknown = member(object, "unk_id", where);
    if (!unknown.is_null()) {
      unknown_ = token_id_of(unknown, field_path(where, "unk_id"));
      if (unknown_ >= vocabulary_.end())
        fail(ErrorCode::kInvalidFile, "{}: {} is not in the vocabulary of {}", field_path(where, "unk_id"), unknown_,
             vocabulary_.end());
    }
    if (bool_member(object, "byte_fallback", false, where)) bytes_ = byte_tokens(vocabulary_);
  }

  void encode(std::string_view piece, std::vector<int32_t>& out) const override {
    if (piece.size() >= std::numeric_limits<uint32_t>::max())
      fail(ErrorCode::kInvalidArgument, "a text of {} bytes is too long", piece.size());
    thread_local std::vector<Step> steps;
    find_path(piece, steps);
    // From the end: unknown characters in a row are one token.
    thread_local std::vector<std::pair<uint32_t, uint32_t>> tokens;
    tokens.clear();
    bool unknown_after = false;
    for (uint32_t end = static_cast<uint32_t>(piece.size()); end > 0;) {
      const Step& step = steps[end];
      const bool unknown = step.id == unknown_;
      if (unknown && unknown_after) {
        tokens.back().first = step.begin;
      } else {
        tokens.emplace_back(step.begin, end);
      }
      unknown_after = unknown;
      end = step.begin;
    }
    for (auto token = tokens.rbegin(); token != tokens.rend(); ++token)
      append(piece.substr(token->first, token->second - token->first), out);
    constexpr size_t kKept = 1 << 14;
    if (steps.capacity() > kKept) steps = {};
    if (tokens.capacity() > kKept) tokens = {};
  }

 private:
  std::vector<std::string_view> read_tokens(const json& object, std::string_view where) {
    const json& list = array_member(object, "vocab", where);
    const std::string path = field_path(where, "vocab");
    if (list.size() > static_cast<size_t>(kMaxTokenId))
      fail(ErrorCode::kUnsupported, "{} has {} tokens; up to {} are supported", path, list.size(), kMaxTokenId);
    std::vector<std::string_view> tokens;
    tokens.reserve(list.size());
    scores_.reserve(list.size());
    for (size_t i = 0; i < list.size(); ++i) {
      if (!list[i].is_array() || list[i].size() != 2 || !list[i][0].is_string() || !list[i][1].is_number())
        fail(ErrorCode::kInvalidFile, "{}[{}] must be [token, score]", path, i);
      tokens.push_back(list[i][0].get_ref<const std::string&>());
      if (tokens.back().size() > kMaxUnigramTokenBytes)
        fail(ErrorCode::kUnsupported, "{}[{}] has {} bytes; up to {} are supported", path, i, tokens.back().size(),
             kMaxUnigramTokenBytes);
      scores_.push_back(score_of_decimal(list[i][1].get<double>()));
      lowest_ = std::min(lowest_, scores_.back());
    }
    return tokens;
  }

  void find_path(std::string_view piece, std::vector<Step>& steps) const {
    steps.assign(piece.size() + 1, {});
    const auto offer = [&](size_t begin, size_t end, int32_t id, double score) {
      Step& step = steps[end];
      if (step.begin != Step{}.begin && !(score > step.score)) return;
      step = {score, static_cast<uint32_t>(begin), id};
    };
    for (size_t at = 0; at < piece.size();) {
      const double here = steps[at].score;
      const size_t character = code_point_at(piece, at).bytes;
      bool character_known = false;
      const Trie::Node* node = &trie_.root();
      for (size_t end = at; end < piece.size();) {
        node = trie_.child(*node, static_cast<uint8_t>(piece[end]));
        if (node == nullptr) break;
        ++end;
        if (node->id == kNone) continue;
        offer(at, end, node->id, scores_[static_cast<size_t>(node->id)] + here);
        character_known = character_known || end - at == character;
      }
      if (!character_known) {
        if (unknown_ == kNone)
          fail(ErrorCode::kInvalidFile, "{} has no token for a character of this text, and no unk_id", where_);
        offer(at, at + character, unknown_, lowest_ - kUnknownPenalty + here);
      }
      at += character;
    }
  }

  void append(std::string_view token, std::vector<int32_t>& out) const {
    if (const auto id = vocabulary_.find(token)) {
      out.push_back(*id);
      return;
    }
    const bool all = bytes_ && std::all_of(token.begin(), token.end(),
                                           [&](char c) { return (*bytes_)[static_cast<uint8_t>(c)] != kNone; });
    if (!all) {
      out.push_back(unknown_);
      return;
    }
    for (const char c : token) out.push_back((*bytes_)[static_cast<uint8_t>(c)]);
  }

  std::string where_;
  double lowest_ = std::numeric_limits<double>::infinity();
  std::vector<double> scores_;            // by id
  std::vector<std::string_view> tokens_;  // by id; valid in the constructor
  Trie trie_;
  int32_t unknown_ = kNone;
  std::optional<std::array<int32_t, 256>> bytes_;
};

std::array<double, 309> make_powers() {
  std::array<double, 309> powers{};
  for (size_t i = 0; i < powers.size(); ++i) powers[i] = std::strtod(fmt::format("1e{}", i).c_str(), nullptr);
  return powers;
}

}  // namespace

double score_of_decimal(double value) {
  static const std::array<double, 309> kPowers = make_powers();
  char buffer[64];
  const auto printed = std::to_chars(buffer, buffer + sizeof buffer, std::abs(value), std::chars_format::scientific);
  const std::string_view text(buffer, static_cast<size_t>(printed.ptr - buffer));
  const size_t e = text.find('e');
  if (e == std::string_view::npos) return value;  // not finite
  uint64_t digits = 0;
  int exponent = 0;
  for (const char c : text.substr(0, e))
    if (c != '.') digits = digits * 10 + static_cast<uint64_t>(c - '0');
  std::from_chars(text.data() + e + (text[e + 1] == '+' ? 2 : 1), printed.ptr, exponent);
  if (e > 1) exponent -= static_cast<int>(e) - 2;  // the digits after the point
  const size_t power = static_cast<size_t>(std::abs(exponent));
  if (power >= kPowers.size()) return value;
  const double magnitude =
      exponent < 0 ? static_cast<double>(digits) / kPowers[power] : static_cast<double>(digits) * kPowers[power];
  return std::copysign(magnitude, value);
}

std::unique_ptr<TokenModel> make_unigram(const json& object, std::string_view where) {
  return std::make_unique<Unigram>(object, where);
}

}  // namespace upg
