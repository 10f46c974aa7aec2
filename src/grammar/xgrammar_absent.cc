#include "base/error.h"
#include "grammar/xgrammar.h"

namespace upg::grammar {

const char* missing() {
  return "this build has no grammars: xgrammar's sources were not there (./dev setup gets them)";
}

std::shared_ptr<const Vocabulary> Vocabulary::make(const std::vector<std::string>&) {
  fail(ErrorCode::kUnsupported, "{}", missing());
}

std::shared_ptr<const Compiled> compile(const std::shared_ptr<const Vocabulary>&, const std::string&, unsigned) {
  fail(ErrorCode::kUnsupported, "{}", missing());
}

std::string pattern_fault(const std::string&) { return missing(); }

}  // namespace upg::grammar
