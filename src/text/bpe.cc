// BPE over a queue of possible merges: O(n log n) in the length of the piece, whatever the piece.
#include "text/bpe.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/tokenizer_json.h"
#include "text/unicode.h"

namespace upg {
namespace {

using nlohmann::json;

constexpr int32_t kNone = -1;

struct MergeRule {
  uint32_t rank;  // lower goes first
  int32_t result;
};

// (left id, right id) to rule: open addressing, because this lookup is most of the encoding time.
class MergeTable {
 public:
  explicit MergeTable(size_t rules) {
    size_t slots = 16;
    while (slots < rules * 2) slots *= 2;
    slots_.resize(slots);
  }

  void set(int32_t left, int32_t right, MergeRule rule) {
    Slot& slot = slots_[index_of(key_of(left, right))];
    slot = {key_of(left, right), rule};
  }

  const MergeRule* find(int32_t left, int32_t right) const {
    const Slot& slot = slots_[index_of(key_of(left, right))];
    return slot.key == kEmpty ? nullptr : &slot.rule;
  }

 private:
  static constexpr uint64_t kEmpty = std::numeric_limits<uint64_t>::max();  // ids are not negative
  struct Slot {
    uint64_t key = kEmpty;
    MergeRule rule{};
  };

  static uint64_t key_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  // The slot that holds the key, or the empty one where it would go.
  size_t index_of(uint64_t key) const {
    uint64_t hash = (key ^ key >> 29) * 0xbf58476d1ce4e5b9u;
    hash ^= hash >> 32;
    size_t index = hash & (slots_.size() - 1);
    while (slots_[index].key != key && slots_[index].key != kEmpty) index = (index + 1) & (slots_.size() - 1);
    return index;
  }

  std::vector<Slot> slots_;
};

struct Symbol {
  int32_t id;
  uint32_t previous;
  uint32_t next;
};
constexpr uint32_t kEnd = std::numeric_limits<uint32_t>::max();

struct Candidate {
  uint32_t rank;
  uint32_t position;
  int32_t result;
  // For std::push_heap, whose top is the greatest: the lowest rank, then the leftmost.
  bool operator<(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : position > other.position;
  }
};

// Buffers of one encode() call after another; bounded, because a huge piece's buffers are not kept.
struct Workspace {
  std::vector<Symbol> symbols;
  std::vector<Candidate> queue;
};

// The space between the two tokens. Where tokens have spaces too, the one that leaves two known tokens on its sides
// and a known token without it; npos if that is none or several.
size_t separator(std::string_view line, const Vocabulary& vocabulary) {
  size_t found = line.find(' ');
  if (found == std::string_view::npos || line.find(' ', found + 1) == std::string_view::npos) return found;
  found = std::string_view::npos;
  for (size_t at = line.find(' '); at != std::string_view::npos; at = line.find(' ', at + 1)) {
    const std::string_view left = line.substr(0, at);
    const std::string_view right = line.substr(at + 1);
    if (!vocabulary.find(left) || !vocabulary.find(right) || !vocabulary.find(std::string(left).append(right)))
      continue;
    if (found != std::string_view::npos) return std::string_view::npos;
    found = at;
  }
  return found;
}

class Bpe final : public TokenModel {
 public:
  Bpe(const json& object, std::string_view where) : merges_(array_member(object, "merges", where).size()) {
    refuse_unsupported(object, where);
    ignore_merges_ = bool_member(object, "ignore_merges", false, where);
    fuse_unknown_ = bool_member(object, "fuse_unk", false, where);
    vocabulary_.read(member(object, "vocab", where), field_path(where, "vocab"));
    // A character that is not in the vocabulary is left out where there is no token for it.
    if (!member(object, "unk_token", where).is_null())
      unknown_ = vocabulary_.find(string_member(object, "unk_token", where)).value_or(kNone);
    if (!member(object, "merges", where).is_array())
      fail(ErrorCode::kInvalidFile, "{} must be an array", field_path(where, "merges"));
    read_merges(object["merges"], field_path(where, "merges"));
    if (bool_member(object, "byte_fallback", false, where)) bytes_ = byte_tokens(vocabulary_);
    for (uint32_t c = 0; c < first_ids_.size(); ++c) {
      std::string character;
      append_utf8(character, c);
      first_ids_[c] = vocabulary_.find(character).value_or(kNone);
    }
  }

  void encode(std::string_view piece, std::vector<int32_t>& out) const override {
    if (ignore_merges_) {
      if (const auto whole = vocabulary_.find(piece)) {
        out.push_back(*whole);
        return;
      }
    }
    thread_local Workspace workspace;
    start(piece, workspace.symbols);
    merge(workspace);
    if (!workspace.symbols.empty())
      for (uint32_t i = 0; i != kEnd; i = workspace.symbols[i].next) out.push_back(workspace.symbols[i].id);
    constexpr size_t kKeptSymbols = 1 << 12;
    if (workspace.symbols.capacity() > kKeptSymbols) workspace = {};
  }

 private:
  static void refuse_unsupported(const json& object, std::string_view where) {
    const json& dropout = member(object, "dropout", where);
    if (!dropout.is_null() && !(dropout.is_number() && dropout.get<double>() == 0.0))
      fail(ErrorCode::kUnsupported, "{} must be null or 0: encoding is not random here", field_path(where, "dropout"));
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (!member(object, key, where).is_null() && !string_member(object, key, where).empty())
        fail(ErrorCode::kUnsupported, "{} is not supported unless empty", field_path(where, key));
  }

  // The rank of a merge is its place in the list.
  void read_merges(const json& merges, const std::string& where) {
    std::string joined;
    uint32_t rank = 0;
    each_merge(merges, vocabulary_, where, [&](std::string_view left, std::string_view right) {
      joined.assign(left).append(right);
      const auto result = vocabulary_.find(joined);
      if (!result) fail(ErrorCode::kInvalidFile, "{} names \"{}\", which is not in the vocabulary", where, joined);
      merges_.set(*vocabulary_.find(left), *vocabulary_.find(right),
                  {rank++, *result});  // of equal ones the later counts, as in HF
    });
  }

  int32_t first_id(std::string_view piece, size_t at, CodePoint c) const {
    if (c.value < first_ids_.size()) return first_ids_[c.value];
    return vocabulary_.find(piece.substr(at, c.bytes)).value_or(kNone);
  }

  // One symbol for each character; for one that is not in the vocabulary its bytes, or the unknown token. That token
  // waits for the next known character, so that it comes after bytes that stand behind it, as in Hugging Face
  // tokenizers.
  void start(std::string_view piece, std::vector<Symbol>& symbols) const {
    symbols.clear();
    bool waiting = false;
    for (size_t at = 0; at < piece.size();) {
      const CodePoint c = code_point_at(piece, at);
      const int32_t id = first_id(piece, at, c);
      const std::string_view character = piece.substr(at, c.bytes);
      at += c.bytes;
      if (id != kNone) {
        if (std::exchange(waiting, false)) symbols.push_back({unknown_, 0, 0});
        symbols.push_back({id, 0, 0});
      } else if (all_bytes_known(character)) {
        for (const char byte : character) symbols.push_back({(*bytes_)[static_cast<uint8_t>(byte)], 0, 0});
      } else if (unknown_ != kNone) {
        if (waiting && !fuse_unknown_) symbols.push_back({unknown_, 0, 0});
        waiting = true;
      }
    }
    if (waiting) symbols.push_back({unknown_, 0, 0});
    if (symbols.size() >= kEnd) fail(ErrorCode::kInvalidArgument, "a text of {} bytes is too long", piece.size());
    const uint32_t count = static_cast<uint32_t>(symbols.size());
    for (uint32_t i = 0; i < count; ++i) {
      symbols[i].previous = i == 0 ? kEnd : i - 1;
      symbols[i].next = i + 1 == count ? kEnd : i + 1;
    }
  }

  bool all_bytes_known(std::string_view character) const {
    return bytes_ && std::all_of(character.begin(), character.end(),
                                 [&](char c) { return (*bytes_)[static_cast<uint8_t>(c)] != kNone; });
  }

  void merge(Workspace& workspace) const {
    std::vector<Symbol>& symbols = workspace.symbols;
    std::vector<Candidate>& queue = workspace.queue;
    queue.clear();
    for (uint32_t i = 0; i + 1 < symbols.size(); ++i)
      if (const MergeRule* rule = merges_.find(symbols[i].id, symbols[i + 1].id))
        queue.push_back({rule->rank, i, rule->result});
    std::make_heap(queue.begin(), queue.end());
    const auto consider = [&](uint32_t left) {
      const MergeRule* rule = merges_.find(symbols[left].id, symbols[symbols[left].next].id);
      if (rule == nullptr) return;
      queue.push_back({rule->rank, left, rule->result});
      std::push_heap(queue.begin(), queue.end());
    };
    while (!queue.empty()) {
      const Candidate top = queue.front();
      std::pop_heap(queue.begin(), queue.end());
      queue.pop_back();
      Symbol& left = symbols[top.position];
      if (left.id == kNone || left.next == kEnd) continue;  // merged into its neighbour since
      Symbol& right = symbols[left.next];
      const MergeRule* rule = merges_.find(left.id, right.id);
      if (rule == nullptr || rule->result != top.result) continue;  // one of the two has changed since
      left.id = top.result;
      right.id = kNone;
      left.next = right.next;
      if (left.next != kEnd) {
        symbols[left.next].previous = top.position;
        consider(top.position);
      }
      if (left.previous != kEnd) consider(left.previous);
    }
  }

  MergeTable merges_;
  std::vector<int32_t> first_ids_ = std::vector<int32_t>(0x200);  // of characters below U+0200: the byte alphabet
  std::optional<std::array<int32_t, 256>> bytes_;                 // with byte fallback
  int32_t unknown_ = kNone;
  bool ignore_merges_ = false;
  bool fuse_unknown_ = false;
};

}  // namespace

// Each merge is "left right" or ["left", "right"].
void each_merge(const json& merges, const Vocabulary& vocabulary, std::string_view where,
                const std::function<void(std::string_view left, std::string_view right)>& f) {
  for (size_t i = 0; i < merges.size(); ++i) {
    const auto broken = [&](std::string_view what) { fail(ErrorCode::kInvalidFile, "{}[{}] {}", where, i, what); };
    std::string_view left;
    std::string_view right;
    if (merges[i].is_string()) {
      const std::string_view line = merges[i].get_ref<const std::string&>();
      if (line.starts_with("#version")) continue;
      const size_t space = separator(line, vocabulary);
      if (space == std::string_view::npos) broken("must be two tokens with one space between");
      left = line.substr(0, space);
      right = line.substr(space + 1);
    } else if (merges[i].is_array() && merges[i].size() == 2 && merges[i][0].is_string() && merges[i][1].is_string()) {
      left = merges[i][0].get_ref<const std::string&>();
      right = merges[i][1].get_ref<const std::string&>();
    } else {
      broken("must be a string or an array of two strings");
    }
    for (const std::string_view token : {left, right})
      if (!vocabulary.find(token)) broken(fmt::format("names \"{}\", which is not in the vocabulary", token));
    f(left, right);
  }
}

std::unique_ptr<TokenModel> make_bpe(const json& object, std::string_view where) {
  return std::make_unique<Bpe>(object, where);
}

}  // namespace upg
