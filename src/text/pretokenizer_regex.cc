// Running patterns; the rewriting is in pretokenizer_regex_translate.cc.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pretokenizer_regex.h"

#include <pcre2.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/tokenizer_json.h"
#include "text/unicode.h"

namespace upg {
namespace {

constexpr size_t kMaxPatternBytes = 1 << 16;
constexpr uint32_t kMaxParentheses = 100;
constexpr uint32_t kMatchLimit = 10'000'000;  // steps from one starting point
constexpr uint32_t kHeapLimitKiB = 64 << 10;
constexpr size_t kJitStackBytes = 8 << 20;

template <auto kFree>
struct Free {
  template <typename T>
  void operator()(T* pointer) const {
    kFree(pointer);
  }
};
using Code = std::unique_ptr<pcre2_code, Free<pcre2_code_free>>;
using CompileContext = std::unique_ptr<pcre2_compile_context, Free<pcre2_compile_context_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Free<pcre2_match_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>>;
using JitStack = std::unique_ptr<pcre2_jit_stack, Free<pcre2_jit_stack_free>>;

std::string message_of(int code) {
  PCRE2_UCHAR buffer[256];
  if (pcre2_get_error_message(code, buffer, sizeof buffer) < 0) return "PCRE2 error " + std::to_string(code);
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

struct Regex::Compiled {
  Code code;
};

Regex::Regex(std::string_view pattern, bool literal, std::string_view where)
    : compiled_(std::make_unique<Compiled>()), where_(where) {
  if (pattern.size() > kMaxPatternBytes)
    fail(ErrorCode::kUnsupported, "{}: pattern of {} bytes is longer than {}", where, pattern.size(), kMaxPatternBytes);
  const std::string translated = literal ? std::string(pattern) : translate_regex(pattern, where);
  CompileContext context(pcre2_compile_context_create(nullptr));
  if (!context) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), kMaxParentheses);
  // Ruby's ^ and $ always stand at lines.
  const uint32_t options = PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE);
  int error = 0;
  size_t offset = 0;
  compiled_->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(), options,
                                      &error, &offset, context.get()));
  if (!compiled_->code)
    fail(ErrorCode::kInvalidFile, "{}: not a regular expression that this build can use: {}", where, message_of(error));
  pcre2_jit_compile(compiled_->code.get(), PCRE2_JIT_COMPLETE);  // without JIT the interpreter does it, slower
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;

void Regex::find_all(std::string_view text, std::vector<Match>& out) const {
  out.clear();
  MatchData data(pcre2_match_data_create(1, nullptr));
  MatchContext context(pcre2_match_context_create(nullptr));
  if (!data || !context) throw std::bad_alloc();
  // A plain run over the text, such as \s* before something that is not there, takes a step for each byte.
  pcre2_set_match_limit(context.get(),
                        static_cast<uint32_t>(std::min<size_t>(kMatchLimit + 2 * text.size(), UINT32_MAX)));
  pcre2_set_heap_limit(context.get(), kHeapLimitKiB);
  JitStack stack;
  size_t covered = 0;      // end of the last piece
  size_t from = 0;         // where the next search starts
  bool has_match = false;  // a match has been taken, ending at `covered` or before
  size_t last_match_end = 0;
  while (from <= text.size()) {
    const auto search = [&] {
      return pcre2_match(compiled_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                         PCRE2_NO_UTF_CHECK, data.get(), context.get());
    };
    int result = search();
    if (result == PCRE2_ERROR_JIT_STACKLIMIT && !stack) {  // rare, so the big stack is made only then
      stack.reset(pcre2_jit_stack_create(32 << 10, kJitStackBytes, nullptr));
      if (!stack) throw std::bad_alloc();
      pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
      result = search();
    }
    if (result == PCRE2_ERROR_NOMATCH) break;
    if (result < 0) fail(ErrorCode::kInvalidFile, "{}: cannot split the text: {}", where_, message_of(result));
    const size_t* offsets = pcre2_get_ovector_pointer(data.get());
    const size_t begin = offsets[0];
    const size_t end = offsets[1];
    // A lookbehind or lookahead can move the start with \K only, which translate_regex refuses; checked all the same.
    if (begin > end || begin < covered || end > text.size())
      fail(ErrorCode::kUnsupported, "{}: the pattern's matches overlap", where_);
    if (begin == end && has_match && last_match_end == end) {  // an empty match right after a match does not count
      from += from < text.size() ? code_point_at(text, from).bytes : 1;
      continue;
    }
    from = last_match_end = end;
    has_match = true;
    if (covered != begin) out.push_back({covered, begin, false});
    out.push_back({begin, end, true});
    covered = end;
  }
  if (covered != text.size()) out.push_back({covered, text.size(), false});
}

Regex regex_member(const nlohmann::json& json, std::string_view key, std::string_view where) {
  const std::string path = field_path(where, key);
  const nlohmann::json& pattern = member(json, key, where);
  const bool literal = member(pattern, "Regex", path).is_null();
  const std::string_view form = literal ? "String" : "Regex";
  return Regex(string_member(pattern, form, path), literal, field_path(path, form));
}

}  // namespace upg
