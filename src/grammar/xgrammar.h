// What of xgrammar the library uses: compiling, and which tokens may come next. xgrammar_core.cc is over its C++ core,
// xgrammar_absent.cc stands in its place where the build has none. Text comes normalised, from source.h.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace upg::grammar {

/// Why this build knows no grammars; nullptr where it does.
const char* missing();

/// The bytes of each token, without those that no text contains.
class Vocabulary {
 public:
  virtual ~Vocabulary() = default;
  /// `tokens` [vocab_size]: empty for special tokens, ends and padding.
  static std::shared_ptr<const Vocabulary> make(const std::vector<std::string>& tokens);
};

/// One text on its way through a grammar.
class Matcher {
 public:
  virtual ~Matcher() = default;
  /// Bit i of `bits` [(vocab_size + 31) / 32]: token i may come next.
  virtual void fill(std::span<int32_t> bits) = 0;
  virtual bool accept(int32_t token) = 0;
  /// The text may end here.
  virtual bool complete() const = 0;
};

class Compiled {
 public:
  virtual ~Compiled() = default;
  virtual uint64_t bytes() const = 0;
  virtual std::unique_ptr<Matcher> matcher() const = 0;
};

/// Of a structural tag, xgrammar's JSON for a grammar of parts. Throws Error(kInvalidArgument), also where xgrammar
/// warns that it leaves something out. Takes as long and as much memory as it takes: see bounded.h.
std::shared_ptr<const Compiled> compile(const std::shared_ptr<const Vocabulary>& vocabulary, const std::string& tag,
                                        unsigned threads);

/// Why xgrammar cannot match `pattern` within a JSON string, or an empty text.
std::string pattern_fault(const std::string& pattern);

}  // namespace upg::grammar
