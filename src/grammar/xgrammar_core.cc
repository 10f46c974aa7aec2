#include <grammar_functor.h>
#include <xgrammar/xgrammar.h>

#include <exception>
#include <new>
#include <system_error>

#include "base/error.h"
#include "grammar/xgrammar.h"

namespace xgrammar {
namespace {

thread_local std::string warnings;  // of the call that runs in this thread

}  // namespace

// The hooks of XGRAMMAR_LOG_CUSTOMIZE.
void LogFatalImpl(const std::string&, int, const std::string& message) { throw std::runtime_error(message); }

void LogMessageImpl(const std::string&, int, int level, const std::string& message) {
  if (level < XGRAMMAR_LOG_LEVEL_WARNING) return;
  if (!warnings.empty()) warnings += "; ";
  warnings += message;
}

}  // namespace xgrammar

namespace upg::grammar {
namespace {

struct RealVocabulary final : Vocabulary {
  explicit RealVocabulary(const std::vector<std::string>& tokens)
      : info(tokens, xgrammar::VocabType::RAW, static_cast<int>(tokens.size()), std::vector<int32_t>{}) {}
  xgrammar::TokenizerInfo info;
};

class RealMatcher final : public Matcher {
 public:
  RealMatcher(const xgrammar::CompiledGrammar& compiled, int64_t words) : matcher_(compiled), words_(words) {}

  void fill(std::span<int32_t> bits) override {
    UPG_CHECK(static_cast<int64_t>(bits.size()) == words_);
    DLTensor tensor{bits.data(), {kDLCPU, 0}, 1, xgrammar::GetBitmaskDLType(), &words_, nullptr, 0};
    if (!matcher_.FillNextTokenBitmask(&tensor)) std::fill(bits.begin(), bits.end(), -1);
  }
  bool accept(int32_t token) override { return matcher_.AcceptToken(token); }
  bool complete() const override { return matcher_.IsCompleted(); }

 private:
  xgrammar::GrammarMatcher matcher_;
  int64_t words_;
};

struct RealCompiled final : Compiled {
  explicit RealCompiled(xgrammar::CompiledGrammar c) : compiled(std::move(c)) {}
  uint64_t bytes() const override { return compiled.MemorySizeBytes(); }
  std::unique_ptr<Matcher> matcher() const override {
    return std::make_unique<RealMatcher>(compiled,
                                         xgrammar::GetBitmaskSize(compiled.GetTokenizerInfo().GetVocabSize()));
  }
  xgrammar::CompiledGrammar compiled;
};

// What xgrammar says is a sentence for programmers: its first line, without the condition that failed, is enough.
std::string first_line(std::string text) {
  const std::string_view failed = ") is false: ";
  if (const size_t at = text.find(failed); at != std::string::npos) text.erase(0, at + failed.size());
  return text.substr(0, std::min(text.find('\n'), size_t{400}));
}

}  // namespace

const char* missing() { return nullptr; }

std::shared_ptr<const Vocabulary> Vocabulary::make(const std::vector<std::string>& tokens) {
  return std::make_shared<RealVocabulary>(tokens);
}

std::shared_ptr<const Compiled> compile(const std::shared_ptr<const Vocabulary>& vocabulary, const std::string& tag,
                                        unsigned threads) {
  xgrammar::warnings.clear();
  std::shared_ptr<const Compiled> compiled;
  try {
    xgrammar::GrammarCompiler compiler(static_cast<const RealVocabulary&>(*vocabulary).info, static_cast<int>(threads),
                                       /*cache_enabled=*/false);
    compiled = std::make_shared<RealCompiled>(compiler.CompileStructuralTag(tag));
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::system_error&) {  // no memory for a thread
    throw std::bad_alloc();
  } catch (const std::exception& error) {
    fail(ErrorCode::kInvalidArgument, "{}", first_line(error.what()));
  }
  if (!xgrammar::warnings.empty())
    fail(ErrorCode::kInvalidArgument, "a part of it cannot be enforced: {}", first_line(xgrammar::warnings));
  return compiled;
}

std::string pattern_fault(const std::string& pattern) {
  xgrammar::warnings.clear();
  try {
    auto fsm = xgrammar::GrammarFSMBuilder::Regex(pattern, /*json_string=*/true);
    if (fsm.IsErr()) return first_line(std::move(fsm).UnwrapErr().what());
    const auto built = std::move(fsm).Unwrap();
    std::unordered_set<int> reachable;
    built.GetReachableStates(&reachable);
    if (std::none_of(reachable.begin(), reachable.end(), [&](int state) { return built.IsEndState(state); }))
      return "it matches no text that a JSON string may hold";
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    return first_line(error.what());
  }
  return first_line(xgrammar::warnings);
}

}  // namespace upg::grammar
