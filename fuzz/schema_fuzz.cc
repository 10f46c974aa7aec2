// JSON schemas and patterns from anywhere are normalised or refused.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "grammar/pattern.h"
#include "grammar/schema.h"
#include "upg/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto no_fault = [](const std::string&) { return std::string(); };
  for (const bool relaxed : {false, true}) {
    try {
      const upg::grammar::Schema schema = upg::grammar::normal_schema(text, relaxed, no_fault);
      schema.dump();
    } catch (const upg::Error&) {
    }
  }
  try {
    upg::grammar::exact_pattern(text);
  } catch (const upg::Error&) {
  }
  return 0;
}
