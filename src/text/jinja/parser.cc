// Statements. Expressions are in parser_expr.cc.
#include "text/jinja/parser.h"

#include <algorithm>

#include "text/jinja/parser_impl.h"

namespace upg::jinja {
namespace {

constexpr uint32_t kMaxNesting = 100;
constexpr size_t kMaxSource = 8u << 20;

}  // namespace

Parser::Parser(std::string_view source, const std::string& name) : program_(std::make_unique<Program>()) {
  program_->name = name;
  program_->symbols.emplace_back();  // kCapturedSymbol
  if (source.size() > kMaxSource)
    fail_at(1, "the template has {} bytes; {} are the most that is allowed", source.size(), kMaxSource);
  tokens_ = tokenize(source, name);
}

std::unique_ptr<const Program> Parser::run() {
  statements(program_->body, {});
  for (const Unknown& each : unknown_) fail_at(each.line, "there is no {} named '{}'", each.what, each.name);
  return std::move(program_);
}

Parser::Nesting::Nesting(Parser& p) : parser(p) {
  if (++parser.nesting_ > kMaxNesting)
    parser.fail_at(parser.current().line, "nests deeper than {} levels", kMaxNesting);
}

Token Parser::next() {
  Token token = tokens_[at_];
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool Parser::skip_name(std::string_view name) {
  if (!current().is_name(name)) return false;
  next();
  return true;
}

bool Parser::skip_operator(std::string_view op) {
  if (!current().is_operator(op)) return false;
  next();
  return true;
}

void Parser::expect_operator(std::string_view op) {
  if (!skip_operator(op)) fail_at(current().line, "expected '{}', found '{}'", op, describe(current()));
}

std::string Parser::expect_name() {
  if (current().kind != TokenKind::kName) fail_at(current().line, "expected a name, found '{}'", describe(current()));
  return next().text;
}

void Parser::expect_block_end() {
  if (current().kind != TokenKind::kBlockEnd)
    fail_at(current().line, "expected the end of the tag, found '{}'", describe(current()));
  next();
}

Symbol Parser::symbol(std::string_view name) {
  const auto found = symbols_.find(name);
  if (found != symbols_.end()) return found->second;
  const Symbol fresh = static_cast<Symbol>(program_->symbols.size());
  program_->symbols.emplace_back(name);
  symbols_.emplace(name, fresh);
  return fresh;
}

Body Parser::body_until(Names ends) {
  skip_operator(":");
  expect_block_end();
  Body body;
  statements(body, ends);
  if (current().kind == TokenKind::kEnd) {
    std::string wanted;
    for (const std::string_view end : ends) wanted += fmt::format("{}'{}'", wanted.empty() ? "" : " or ", end);
    fail_at(current().line, "the template ends where {} is needed, to close '{}'", wanted,
            open_tags_.empty() ? "" : open_tags_.back());
  }
  return body;
}

// A body that functions of its own compile: what is around does not reach into it.
Body Parser::scope_until(Names ends) {
  const Scoped<bool> hard(soft_, false);
  Body body = body_until(ends);
  next();
  return body;
}

void Parser::statements(Body& body, Names ends) {
  const Nesting nesting(*this);
  while (current().kind != TokenKind::kEnd) {
    const Token token = next();
    if (token.kind == TokenKind::kData) {
      auto text = make<TextStmt>(token.line);
      text->text = token.text;
      body.push_back(std::move(text));
    } else if (token.kind == TokenKind::kVariableBegin) {
      auto print = make<PrintStmt>(token.line);
      print->values.push_back(tuple());
      if (current().kind != TokenKind::kVariableEnd)
        fail_at(current().line, "expected the end of the print statement, found '{}'", describe(current()));
      next();
      body.push_back(std::move(print));
    } else {
      const bool ended = std::any_of(ends.begin(), ends.end(), [&](auto end) { return current().is_name(end); });
      if (ended) return;
      body.push_back(statement());
      expect_block_end();
    }
  }
}

std::unique_ptr<Stmt> Parser::statement() {
  struct Row {
    std::string_view tag;
    std::unique_ptr<Stmt> (Parser::*parse)();
  };
  static constexpr Row kStatements[] = {
      {"for", &Parser::parse_for},
      {"if", &Parser::parse_if},
      {"set", &Parser::parse_set},
      {"with", &Parser::parse_with},
      {"macro", &Parser::parse_macro},
      {"call", &Parser::parse_call},
      {"filter", &Parser::parse_filter_block},
      {"block", &Parser::parse_block},
      {"print", &Parser::parse_print},
      {"generation", &Parser::parse_generation},
      {"break", &Parser::parse_flow},
      {"continue", &Parser::parse_flow},
      {"include", &Parser::parse_refused},
      {"import", &Parser::parse_refused},
      {"from", &Parser::parse_refused},
      {"extends", &Parser::parse_refused},
  };
  const Token tag = current();
  if (tag.kind != TokenKind::kName) fail_at(tag.line, "expected the name of a tag, found '{}'", describe(tag));
  for (const Row& row : kStatements) {
    if (tag.text != row.tag) continue;
    open_tags_.push_back(tag.text);
    auto parsed = (this->*row.parse)();
    open_tags_.pop_back();
    return parsed;
  }
  if (open_tags_.empty()) fail_at(tag.line, "unknown tag '{}'", tag.text);
  fail_at(tag.line, "unknown tag '{}'; the innermost tag to be closed is '{}'", tag.text, open_tags_.back());
}

Target Parser::single_target(bool with_namespace) {
  Target out;
  const Token token = next();
  out.line = token.line;
  if (token.is_operator("(")) {
    out = target(")", with_namespace);
    expect_operator(")");
    return out;
  }
  static constexpr std::string_view kConstants[] = {"true", "false", "none", "True", "False", "None"};
  if (token.kind != TokenKind::kName ||
      std::find(std::begin(kConstants), std::end(kConstants), token.text) != std::end(kConstants))
    fail_at(token.line, "cannot assign to '{}'", describe(token));
  out.symbol = symbol(token.text);
  if (with_namespace && skip_operator(".")) out.attribute = expect_name();
  return out;
}

Target Parser::target(std::string_view end_name, bool with_namespace) {
  const Nesting nesting(*this);
  const uint32_t line = current().line;
  std::vector<Target> parts;
  bool is_tuple = false;
  for (;;) {
    if (!parts.empty()) expect_operator(",");
    const bool end =
        current().kind == TokenKind::kBlockEnd || current().is_operator(")") || current().is_name(end_name);
    if (end) break;
    parts.push_back(single_target(with_namespace));
    if (!current().is_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && parts.size() == 1) return std::move(parts[0]);
  if (!is_tuple && end_name != ")") fail_at(line, "expected a name to assign to, found '{}'", describe(current()));
  Target out;
  out.line = line;
  out.tuple = true;
  out.parts = std::move(parts);
  return out;
}

std::unique_ptr<Stmt> Parser::parse_for() {
  auto node = make<ForStmt>(next().line);
  node->target = target("in", false);
  if (!skip_name("in")) fail_at(current().line, "expected 'in', found '{}'", describe(current()));
  node->sequence = tuple(false, "recursive");
  const Scoped<bool> hard(soft_, false);
  if (skip_name("if")) node->test = expression();
  node->recursive = skip_name("recursive");
  node->loop_symbol = symbol("loop");
  if (node->target.stores(node->loop_symbol))
    fail_at(node->line, "cannot assign to the special variable 'loop' in the target of a for loop");
  {
    const Scoped<bool> loop(in_loop_, true);
    node->body = body_until({"endfor", "else"});
  }
  if (next().text == "else") node->otherwise = scope_until({"endfor"});
  return node;
}

std::unique_ptr<Stmt> Parser::parse_if() {
  auto node = make<IfStmt>(next().line);
  const Scoped<bool> soft(soft_, true);
  for (;;) {
    ExprPtr test = tuple(false);
    Body body = body_until({"elif", "else", "endif"});
    node->branches.emplace_back(std::move(test), std::move(body));
    const Token end = next();
    if (end.text == "elif") continue;
    if (end.text == "else") {
      node->otherwise = body_until({"endif"});
      next();
    }
    return node;
  }
}

std::unique_ptr<Stmt> Parser::parse_set() {
  const uint32_t line = next().line;
  Target assigned = target({}, true);
  if (skip_operator("=")) {
    auto node = make<SetStmt>(line);
    node->target = std::move(assigned);
    node->value = tuple();
    return node;
  }
  auto node = make<SetBlockStmt>(line);
  node->target = std::move(assigned);
  if (current().is_operator("|")) node->filter = filter(make<NameExpr>(line));
  node->body = scope_until({"endset"});
  return node;
}

std::unique_ptr<Stmt> Parser::parse_with() {
  auto node = make<WithStmt>(next().line);
  while (current().kind != TokenKind::kBlockEnd) {
    if (!node->assignments.empty()) expect_operator(",");
    Target assigned = target({}, false);
    expect_operator("=");
    node->assignments.emplace_back(std::move(assigned), expression());
  }
  node->body = scope_until({"endwith"});
  return node;
}

void Parser::signature(MacroDefinition& macro) {
  expect_operator("(");
  while (!current().is_operator(")")) {
    if (!macro.parameters.empty()) expect_operator(",");
    const uint32_t line = current().line;
    const std::string name = expect_name();
    macro.parameters.emplace_back(symbol(name), name);
    macro.explicit_caller |= name == "caller";
    if (skip_operator("="))
      macro.defaults.push_back(expression());
    else if (!macro.defaults.empty())
      fail_at(line, "parameter '{}' has no default but follows one that has", name);
  }
  expect_operator(")");
}

void Parser::macro_body(MacroDefinition& macro, std::string_view end) {
  macro.caller = symbol("caller");
  macro.varargs = symbol("varargs");
  macro.kwargs = symbol("kwargs");
  const Scoped<bool> loop(in_loop_, false);
  macros_.push_back(&macro);
  macro.body = scope_until({end});
  macros_.pop_back();
  for (const auto& [parameter, name] : macro.parameters) {
    if (parameter == macro.varargs) macro.uses_varargs = false;
    if (parameter == macro.kwargs) macro.uses_kwargs = false;
  }
}

std::unique_ptr<Stmt> Parser::parse_macro() {
  auto node = make<MacroStmt>(next().line);
  node->macro.name = expect_name();
  node->symbol = symbol(node->macro.name);
  signature(node->macro);
  macro_body(node->macro, "endmacro");
  if (node->macro.explicit_caller && node->macro.uses_caller) {
    const size_t first_default = node->macro.parameters.size() - node->macro.defaults.size();
    for (size_t i = 0; i < first_default; ++i)
      if (node->macro.parameters[i].second == "caller")
        fail_at(node->line, "the parameter 'caller' of a macro must be left out or have a default");
  }
  return node;
}

std::unique_ptr<Stmt> Parser::parse_call() {
  auto node = make<CallBlockStmt>(next().line);
  if (current().is_operator("(")) signature(node->macro);
  ExprPtr call = expression();
  if (!call->is_call()) fail_at(node->line, "expected a call after 'call'");
  node->call.reset(static_cast<CallExpr*>(call.release()));
  macro_body(node->macro, "endcall");
  return node;
}

std::unique_ptr<Stmt> Parser::parse_filter_block() {
  auto node = make<FilterBlockStmt>(next().line);
  const Scoped<bool> hard(soft_, false);
  node->filter = filter(make<NameExpr>(node->line), true);
  node->body = scope_until({"endfilter"});
  return node;
}

std::unique_ptr<Stmt> Parser::parse_block() {
  auto node = make<ScopeStmt>(next().line);
  const std::string name = expect_name();
  node->sees_locals = skip_name("scoped");
  skip_name("required");
  const Scoped<bool> loop(in_loop_, false);
  node->body = scope_until({"endblock"});
  skip_name(name);
  return node;
}

std::unique_ptr<Stmt> Parser::parse_generation() {
  auto node = make<ScopeStmt>(next().line);
  const Scoped<bool> loop(in_loop_, false);
  node->body = scope_until({"endgeneration"});
  return node;
}

std::unique_ptr<Stmt> Parser::parse_print() {
  auto node = make<PrintStmt>(next().line);
  while (current().kind != TokenKind::kBlockEnd) {
    if (!node->values.empty()) expect_operator(",");
    node->values.push_back(expression());
  }
  return node;
}

std::unique_ptr<Stmt> Parser::parse_flow() {
  const Token tag = next();
  if (!in_loop_) fail_at(tag.line, "'{}' outside of a loop", tag.text);
  auto node = make<FlowStmt>(tag.line);
  node->flow = tag.text == "break" ? Flow::kBreak : Flow::kContinue;
  return node;
}

std::unique_ptr<Stmt> Parser::parse_refused() {
  const Token tag = next();
  while (current().kind != TokenKind::kBlockEnd && current().kind != TokenKind::kEnd) next();
  auto node = make<RefusedStmt>(tag.line);
  node->what = tag.text;
  return node;
}

std::unique_ptr<const Program> parse(std::string_view source, const std::string& name) {
  return Parser(source, name).run();
}

}  // namespace upg::jinja
