// The parser's state, shared by parser.cc (statements) and parser_expr.cc (expressions).
#pragma once

#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "text/jinja/ast.h"
#include "text/jinja/lexer.h"

namespace upg::jinja {

class Parser {
 public:
  Parser(std::string_view source, const std::string& name);
  std::unique_ptr<const Program> run();

 private:
  using Names = std::initializer_list<std::string_view>;

  /// Counts levels of nested statements and expressions while it lives.
  struct Nesting {
    explicit Nesting(Parser& p);
    ~Nesting() { --parser.nesting_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;
    Parser& parser;
  };
  /// Sets a member for the time that it lives.
  template <typename T>
  struct Scoped {
    Scoped(T& variable, T value) : place(variable), old(variable) { place = value; }
    ~Scoped() { place = old; }
    Scoped(const Scoped&) = delete;
    Scoped& operator=(const Scoped&) = delete;
    T& place;
    T old;
  };

  template <typename... Args>
  [[noreturn]] void fail_at(uint32_t line, fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorCode::kInvalidFile, "{}:{}: {}", program_->name, line, fmt::format(format, std::forward<Args>(args)...));
  }

  const Token& current() const { return tokens_[at_]; }
  const Token& look() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  Token next();
  bool skip_name(std::string_view name);
  bool skip_operator(std::string_view op);
  void expect_operator(std::string_view op);
  std::string expect_name();
  void expect_block_end();
  Symbol symbol(std::string_view name);

  // Statements.
  Body body_until(Names ends);  // after a tag's own words; stands on the end's name afterwards
  Body scope_until(Names ends);
  void statements(Body& body, Names ends);
  std::unique_ptr<Stmt> statement();
  std::unique_ptr<Stmt> parse_for();
  std::unique_ptr<Stmt> parse_if();
  std::unique_ptr<Stmt> parse_set();
  std::unique_ptr<Stmt> parse_with();
  std::unique_ptr<Stmt> parse_macro();
  std::unique_ptr<Stmt> parse_call();
  std::unique_ptr<Stmt> parse_filter_block();
  std::unique_ptr<Stmt> parse_block();
  std::unique_ptr<Stmt> parse_generation();
  std::unique_ptr<Stmt> parse_print();
  std::unique_ptr<Stmt> parse_flow();
  std::unique_ptr<Stmt> parse_refused();
  void signature(MacroDefinition& macro);
  void macro_body(MacroDefinition& macro, std::string_view end);
  Target target(std::string_view end_name, bool with_namespace);
  Target single_target(bool with_namespace);

  // Expressions, from the loosest binding to the tightest.
  ExprPtr tuple(bool with_condition = true, std::string_view end_name = {}, bool in_parentheses = false);
  ExprPtr expression(bool with_condition = true);
  ExprPtr conditional();
  ExprPtr logic(bool is_and);
  ExprPtr negation();
  ExprPtr comparison();
  ExprPtr sum();
  ExprPtr concat();
  ExprPtr product();
  ExprPtr power();
  ExprPtr unary(bool with_filter = true);
  ExprPtr primary();
  ExprPtr list();
  ExprPtr dict();
  ExprPtr postfix(ExprPtr node);
  ExprPtr filters_and_tests(ExprPtr node);
  ExprPtr subscript(ExprPtr node);
  ExprPtr call(ExprPtr callee);
  ExprPtr filter(ExprPtr subject, bool begun = false);
  ExprPtr test(ExprPtr subject);
  ArgumentList arguments();
  bool at_tuple_end(std::string_view end_name) const;

  template <typename T>
  std::unique_ptr<T> make(uint32_t line) {
    return std::make_unique<T>(line);
  }
  /// Bounds the height of the tree.
  ExprPtr built(std::unique_ptr<Expr> node, uint32_t height) const;

  std::unique_ptr<Program> program_;
  std::map<std::string, Symbol, std::less<>> symbols_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  uint32_t nesting_ = 0;
  bool in_loop_ = false;
  struct Unknown {
    uint32_t line;
    std::string_view what;
    std::string name;
  };
  std::vector<Unknown> unknown_;          // filters and tests that are not there
  bool soft_ = false;                     // within a condition, these are refused only where they are reached
  std::vector<MacroDefinition*> macros_;  // being parsed, the innermost last
  std::vector<std::string> open_tags_;
};

}  // namespace upg::jinja
