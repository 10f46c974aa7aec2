// What an answer must look like: a JSON schema, a regular expression, a grammar, or parts put together. A Grammar is
// compiled once for a model and then shared; every generation under it begins anew (GenerateOptions::grammar).
//
//   auto grammar = upg::Grammar::compile(*engine, upg::GrammarSource::json_schema(R"({"type": "integer"})"));
//   session.generate(prompt, {.grammar = grammar});
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace upg {

class Engine;

struct GrammarSource {
  enum class Kind { kText, kJsonSchema, kRegex, kEbnf, kSequence, kChoice };

  /// Just this text, UTF-8.
  static GrammarSource literal(std::string text) { return {Kind::kText, std::move(text), {}, false}; }
  /// JSON that is valid by `schema`. What cannot be enforced is refused by keyword and place; `relaxed`: left out.
  /// docs/grammars.md lists the keywords. Objects have no properties but those that the schema names or asks for.
  static GrammarSource json_schema(std::string schema, bool relaxed = false) {
    return {Kind::kJsonSchema, std::move(schema), {}, relaxed};
  }
  /// Any JSON object.
  static GrammarSource json_object() { return json_schema(R"({"type": "object"})"); }
  /// The whole text matches `pattern`, in ECMAScript's syntax without assertions and back references.
  static GrammarSource regex(std::string pattern) { return {Kind::kRegex, std::move(pattern), {}, false}; }
  /// Rules in EBNF as GBNF has them; the text matches the rule "root".
  static GrammarSource ebnf(std::string rules) { return {Kind::kEbnf, std::move(rules), {}, false}; }
  /// One part after the other.
  static GrammarSource sequence(std::vector<GrammarSource> parts) {
    return {Kind::kSequence, {}, std::move(parts), false};
  }
  /// One of the parts.
  static GrammarSource choice(std::vector<GrammarSource> parts) { return {Kind::kChoice, {}, std::move(parts), false}; }

  Kind kind = Kind::kText;
  std::string text{};
  std::vector<GrammarSource> parts{};
  bool relaxed = false;
};

/// Bounds of what is compiled. A grammar is first compiled and tried in a process of its own, which is ended where it
/// goes over them or crashes.
struct GrammarLimits {
  uint64_t bytes = 256 << 10;          // of all texts of the source
  uint64_t memory = 2ULL << 30;        // that compiling may take
  double seconds = 10;                 // that compiling may take
  uint64_t compiled_bytes = 64 << 20;  // of the result
};

class Grammar {
 public:
  /// For `engine`'s vocabulary; from the engine's cache where the same source was compiled lately. May be called from
  /// any thread, also while the engine generates. Throws Error(kInvalidArgument) for a source that is wrong, that
  /// cannot be enforced or that goes over a limit, Error(kBusy) where others are being compiled for long,
  /// Error(kUnsupported) in a build without grammars.
  static std::shared_ptr<const Grammar> compile(const Engine& engine, const GrammarSource& source,
                                                const GrammarLimits& limits = {});
  ~Grammar();

  uint64_t bytes() const;  // of memory, about

  struct Impl;
  const Impl& impl() const { return *impl_; }

 private:
  explicit Grammar(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Why this build has no grammars; empty where it has.
std::string_view grammars_missing();

/// One text on its way through a grammar, token by token. For those who sample themselves.
class GrammarMatcher {
 public:
  explicit GrammarMatcher(std::shared_ptr<const Grammar> grammar);
  ~GrammarMatcher();
  GrammarMatcher(GrammarMatcher&&) noexcept;

  /// Sets the logits [vocab_size] of tokens that may not come next to -infinity. `ends` may come where the text is
  /// complete. Returns false where none is left: then the text is complete and nothing can follow. Throws
  /// Error(kInvalidArgument) for a grammar so ambiguous that a step takes too long.
  bool mask(std::span<float> logits, std::span<const int32_t> ends);
  /// `token` was taken; none of `ends`. Throws Error(kInvalidArgument) for one that may not come.
  void accept(int32_t token);
  /// The text so far matches.
  bool complete() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace upg
