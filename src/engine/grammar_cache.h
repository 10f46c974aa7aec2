// Grammars of one model: its vocabulary as grammars need it, and what was compiled lately.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <string>

#include "grammar/xgrammar.h"
#include "text/tokenizer.h"
#include "upg/grammar.h"

namespace upg {

class GrammarCache {
 public:
  /// `ends`: tokens that end generations, which no text contains.
  GrammarCache(const Tokenizer& tokenizer, uint64_t vocab_size, std::vector<int32_t> ends);

  std::shared_ptr<const grammar::Compiled> find(const GrammarSource& source, const GrammarLimits& limits);
  /// Tokens that say something else at the beginning of a text than after it. Found when first asked for; any thread
  /// may ask.
  const std::shared_ptr<const std::vector<int32_t>>& other_at_first();

 private:
  struct Entry {
    std::string key;
    std::shared_ptr<const grammar::Compiled> compiled;
  };
  std::shared_ptr<const grammar::Compiled> lookup(const std::string& key);
  void keep(const std::string& key, std::shared_ptr<const grammar::Compiled> compiled);
  const std::shared_ptr<const grammar::Vocabulary>& vocabulary(bool control_characters);

  const Tokenizer& tokenizer_;
  uint64_t vocab_size_;
  std::vector<int32_t> ends_;
  std::once_flag other_at_first_found_;
  std::shared_ptr<const std::vector<int32_t>> other_at_first_;
  std::shared_ptr<const grammar::Vocabulary> vocabularies_[2];  // made one at a time
  std::mutex mutex_;
  std::list<Entry> entries_;  // the latest first
};

}  // namespace upg
