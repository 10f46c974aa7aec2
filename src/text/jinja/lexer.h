// Cuts a template into tokens, with trim_blocks and lstrip_blocks applied to the text between tags.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace upg::jinja {

enum class TokenKind : uint8_t {
  kData,
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind;
  uint32_t line;
  std::string text;  // of kString: without quotes and escapes; of operators: as written
  int64_t integer = 0;
  double number = 0;

  bool is(TokenKind wanted, std::string_view wanted_text) const { return kind == wanted && text == wanted_text; }
  bool is_name(std::string_view name) const { return is(TokenKind::kName, name); }
  bool is_operator(std::string_view op) const { return is(TokenKind::kOperator, op); }
};

/// Ends with a kEnd. Throws Error(kInvalidFile) with `name` and the line.
std::vector<Token> tokenize(std::string_view source, std::string_view name);

/// "unexpected '}'": what an error calls the token.
std::string describe(const Token& token);

}  // namespace upg::jinja
