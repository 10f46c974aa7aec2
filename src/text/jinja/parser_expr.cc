// Expressions, from the loosest binding to the tightest. Statements are in parser.cc.
#include <algorithm>

#include "text/jinja/parser_impl.h"

namespace upg::jinja {
namespace {

// a + b + c is a tree as high as it has terms, and evaluation walks it.
constexpr uint32_t kMaxHeight = 300;

uint32_t height(const ExprPtr& node) { return node ? node->height : 0; }

template <typename Container, typename Get>
uint32_t highest(const Container& nodes, Get get) {
  uint32_t most = 0;
  for (const auto& node : nodes) most = std::max(most, get(node));
  return most;
}

}  // namespace

uint32_t ArgumentList::height() const {
  const uint32_t first = highest(positional, [](const ExprPtr& each) { return each->height; });
  const uint32_t second = highest(named, [](const auto& each) { return each.second->height; });
  return std::max({first, second, jinja::height(more_positional), jinja::height(more_named)});
}

ExprPtr Parser::built(std::unique_ptr<Expr> node, uint32_t below) const {
  node->height = below + 1;
  if (node->height > kMaxHeight)
    fail_at(node->line, "an expression has more than {} operations in each other; use variables", kMaxHeight);
  return node;
}

bool Parser::at_tuple_end(std::string_view end_name) const {
  return current().kind == TokenKind::kVariableEnd || current().kind == TokenKind::kBlockEnd ||
         current().is_operator(")") || (!end_name.empty() && current().is_name(end_name));
}

ExprPtr Parser::tuple(bool with_condition, std::string_view end_name, bool in_parentheses) {
  const uint32_t line = current().line;
  std::vector<ExprPtr> items;
  bool is_tuple = false;
  for (;;) {
    if (!items.empty()) expect_operator(",");
    if (at_tuple_end(end_name)) break;
    items.push_back(expression(with_condition));
    if (!current().is_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && !items.empty()) return std::move(items[0]);
  if (!is_tuple && !in_parentheses) fail_at(current().line, "expected an expression, found '{}'", describe(current()));
  auto node = make<SequenceExpr>(line);
  node->tuple = true;
  node->items = std::move(items);
  const uint32_t below = highest(node->items, height);
  return built(std::move(node), below);
}

ExprPtr Parser::expression(bool with_condition) {
  const Nesting nesting(*this);
  return with_condition ? conditional() : logic(false);
}

ExprPtr Parser::conditional() {
  const uint32_t line = current().line;
  const size_t unknown = unknown_.size();
  ExprPtr value = logic(false);
  if (!current().is_name("if")) return value;
  // What is part of a condition is looked up where it is reached: filters that are not there may never be.
  unknown_.resize(unknown);
  const Scoped<bool> soft(soft_, true);
  while (skip_name("if")) {
    auto node = make<ConditionalExpr>(line);
    node->then = std::move(value);
    node->test = logic(false);
    if (skip_name("else")) {
      const Nesting nesting(*this);
      node->otherwise = conditional();
    }
    const uint32_t below = std::max({height(node->then), height(node->test), height(node->otherwise)});
    value = built(std::move(node), below);
  }
  return value;
}

ExprPtr Parser::logic(bool is_and) {
  const uint32_t line = current().line;
  ExprPtr left = is_and ? negation() : logic(true);
  while (skip_name(is_and ? "and" : "or")) {
    auto node = make<LogicExpr>(line);
    node->is_and = is_and;
    node->left = std::move(left);
    node->right = is_and ? negation() : logic(true);
    const uint32_t below = std::max(height(node->left), height(node->right));
    left = built(std::move(node), below);
  }
  return left;
}

ExprPtr Parser::negation() {
  if (!current().is_name("not")) return comparison();
  const Nesting nesting(*this);
  auto node = make<UnaryExpr>(next().line);
  node->op = '!';
  node->operand = negation();
  const uint32_t below = height(node->operand);
  return built(std::move(node), below);
}

ExprPtr Parser::comparison() {
  static constexpr std::pair<std::string_view, Comparison> kOperators[] = {
      {"==", Comparison::kEqual},     {"!=", Comparison::kNotEqual}, {"<", Comparison::kLess},
      {"<=", Comparison::kLessEqual}, {">", Comparison::kGreater},   {">=", Comparison::kGreaterEqual}};
  const uint32_t line = current().line;
  ExprPtr first = sum();
  std::vector<std::pair<Comparison, ExprPtr>> rest;
  for (;;) {
    const auto* found = std::find_if(std::begin(kOperators), std::end(kOperators),
                                     [&](const auto& row) { return current().is_operator(row.first); });
    if (found != std::end(kOperators)) {
      next();
      rest.emplace_back(found->second, sum());
    } else if (skip_name("in")) {
      rest.emplace_back(Comparison::kIn, sum());
    } else if (current().is_name("not") && look().is_name("in")) {
      next();
      next();
      rest.emplace_back(Comparison::kNotIn, sum());
    } else {
      break;
    }
  }
  if (rest.empty()) return first;
  auto node = make<CompareExpr>(line);
  const uint32_t below = std::max(height(first), highest(rest, [](const auto& each) { return each.second->height; }));
  node->first = std::move(first);
  node->rest = std::move(rest);
  return built(std::move(node), below);
}

ExprPtr Parser::sum() {
  const uint32_t line = current().line;
  ExprPtr left = concat();
  while (current().is_operator("+") || current().is_operator("-")) {
    auto node = make<BinaryExpr>(line);
    node->op = next().text[0];
    node->left = std::move(left);
    node->right = concat();
    const uint32_t below = std::max(height(node->left), height(node->right));
    left = built(std::move(node), below);
  }
  return left;
}

ExprPtr Parser::concat() {
  const uint32_t line = current().line;
  ExprPtr first = product();
  if (!current().is_operator("~")) return first;
  auto node = make<ConcatExpr>(line);
  node->parts.push_back(std::move(first));
  while (skip_operator("~")) node->parts.push_back(product());
  const uint32_t below = highest(node->parts, height);
  return built(std::move(node), below);
}

ExprPtr Parser::product() {
  const uint32_t line = current().line;
  ExprPtr left = power();
  for (;;) {
    const Token& token = current();
    const bool floor = token.is_operator("//");
    if (!floor && !token.is_operator("*") && !token.is_operator("/") && !token.is_operator("%")) return left;
    auto node = make<BinaryExpr>(line);
    node->op = floor ? 'f' : token.text[0];
    next();
    node->left = std::move(left);
    node->right = power();
    const uint32_t below = std::max(height(node->left), height(node->right));
    left = built(std::move(node), below);
  }
}

ExprPtr Parser::power() {
  const uint32_t line = current().line;
  ExprPtr left = unary();
  while (skip_operator("**")) {
    auto node = make<BinaryExpr>(line);
    node->op = 'p';
    node->left = std::move(left);
    node->right = unary();
    const uint32_t below = std::max(height(node->left), height(node->right));
    left = built(std::move(node), below);
  }
  return left;
}

ExprPtr Parser::unary(bool with_filter) {
  ExprPtr node;
  if (current().is_operator("-") || current().is_operator("+")) {
    const Nesting nesting(*this);
    const Token sign = next();
    auto negated = make<UnaryExpr>(sign.line);
    negated->op = sign.text[0];
    negated->operand = unary(false);
    const uint32_t below = height(negated->operand);
    node = built(std::move(negated), below);
  } else {
    node = primary();
  }
  node = postfix(std::move(node));
  return with_filter ? filters_and_tests(std::move(node)) : std::move(node);
}

ExprPtr Parser::primary() {
  static const std::pair<std::string_view, Value> kConstants[] = {
      {"true", Value::boolean(true)},   {"True", Value::boolean(true)}, {"false", Value::boolean(false)},
      {"False", Value::boolean(false)}, {"none", Value::none()},        {"None", Value::none()}};
  const Token& token = current();
  if (token.is_operator("[")) return list();
  if (token.is_operator("{")) return dict();
  if (token.is_operator("(")) {
    const Nesting nesting(*this);
    next();
    ExprPtr node = tuple(true, {}, true);
    expect_operator(")");
    return node;
  }
  auto constant = make<ConstExpr>(token.line);
  if (token.kind == TokenKind::kString) {
    std::string text;
    while (current().kind == TokenKind::kString) text += next().text;
    constant->constant = Value::text(std::move(text));
  } else if (token.kind == TokenKind::kInteger) {
    constant->constant = Value::integer(next().integer);
  } else if (token.kind == TokenKind::kFloat) {
    constant->constant = Value::number(next().number);
  } else if (token.kind == TokenKind::kName) {
    const Token name = next();
    const auto* found = std::find_if(std::begin(kConstants), std::end(kConstants),
                                     [&](const auto& row) { return name.text == row.first; });
    if (found == std::end(kConstants)) {
      auto node = make<NameExpr>(name.line);
      node->symbol = symbol(name.text);
      for (MacroDefinition* macro : macros_) {
        macro->uses_caller |= node->symbol == macro->caller;
        macro->uses_varargs |= node->symbol == macro->varargs;
        macro->uses_kwargs |= node->symbol == macro->kwargs;
      }
      return node;
    }
    constant->constant = found->second;
  } else {
    fail_at(token.line, "unexpected '{}'", describe(token));
  }
  return constant;
}

ExprPtr Parser::list() {
  auto node = make<SequenceExpr>(next().line);
  while (!current().is_operator("]")) {
    if (!node->items.empty()) expect_operator(",");
    if (current().is_operator("]")) break;
    node->items.push_back(expression());
  }
  expect_operator("]");
  const uint32_t below = highest(node->items, height);
  return built(std::move(node), below);
}

ExprPtr Parser::dict() {
  auto node = make<DictExpr>(next().line);
  while (!current().is_operator("}")) {
    if (!node->entries.empty()) expect_operator(",");
    if (current().is_operator("}")) break;
    ExprPtr key = expression();
    expect_operator(":");
    node->entries.emplace_back(std::move(key), expression());
  }
  expect_operator("}");
  const uint32_t below =
      highest(node->entries, [](const auto& each) { return std::max(each.first->height, each.second->height); });
  return built(std::move(node), below);
}

ExprPtr Parser::postfix(ExprPtr node) {
  for (;;) {
    if (current().is_operator(".") || current().is_operator("["))
      node = subscript(std::move(node));
    else if (current().is_operator("("))
      node = call(std::move(node));
    else
      return node;
  }
}

ExprPtr Parser::filters_and_tests(ExprPtr node) {
  for (;;) {
    if (current().is_operator("|"))
      node = filter(std::move(node));
    else if (current().is_name("is"))
      node = test(std::move(node));
    else if (current().is_operator("("))
      node = call(std::move(node));
    else
      return node;
  }
}

ExprPtr Parser::subscript(ExprPtr subject) {
  const Token opening = next();
  const uint32_t below = subject->height;
  if (opening.text == ".") {
    const Token name = next();
    if (name.kind == TokenKind::kName) {
      auto node = make<AttributeExpr>(opening.line);
      node->subject = std::move(subject);
      node->name = name.text;
      return built(std::move(node), below);
    }
    if (name.kind != TokenKind::kInteger) fail_at(name.line, "expected a name or number after '.'");
    auto key = make<ConstExpr>(name.line);
    key->constant = Value::integer(name.integer);
    auto node = make<ItemExpr>(opening.line);
    node->subject = std::move(subject);
    node->key = std::move(key);
    return built(std::move(node), below);
  }
  std::vector<ExprPtr> keys;
  while (!current().is_operator("]")) {
    if (!keys.empty()) expect_operator(",");
    ExprPtr start, stop, step;
    if (!current().is_operator(":")) start = expression();
    if (start && !current().is_operator(":")) {
      keys.push_back(std::move(start));
      continue;
    }
    next();
    const auto at_end = [&] {
      return current().is_operator("]") || current().is_operator(",") || current().is_operator(":");
    };
    if (!at_end()) stop = expression();
    if (skip_operator(":") && !at_end()) step = expression();
    if (!keys.empty() || !current().is_operator("]")) fail_at(current().line, "a slice must be the only subscript");
    next();
    auto node = make<SliceExpr>(opening.line);
    const uint32_t most = std::max({below, height(start), height(stop), height(step)});
    node->subject = std::move(subject);
    node->start = std::move(start);
    node->stop = std::move(stop);
    node->step = std::move(step);
    return built(std::move(node), most);
  }
  next();
  auto node = make<ItemExpr>(opening.line);
  node->subject = std::move(subject);
  if (keys.size() == 1) {
    node->key = std::move(keys[0]);
  } else {
    auto key = make<SequenceExpr>(opening.line);
    key->tuple = true;
    key->items = std::move(keys);
    const uint32_t most = highest(key->items, height);
    node->key = built(std::move(key), most);
  }
  const uint32_t most = std::max(below, height(node->key));
  return built(std::move(node), most);
}

ArgumentList Parser::arguments() {
  const Nesting nesting(*this);
  ArgumentList out;
  const uint32_t line = current().line;
  const auto ensure = [&](bool fine) {
    if (!fine) fail_at(line, "arguments of a call are in the wrong order");
  };
  expect_operator("(");
  for (bool first = true; !current().is_operator(")"); first = false) {
    if (!first) expect_operator(",");
    if (current().is_operator(")")) break;
    if (skip_operator("*")) {
      ensure(!out.more_positional && !out.more_named);
      out.more_positional = expression();
    } else if (skip_operator("**")) {
      ensure(!out.more_named);
      out.more_named = expression();
    } else if (current().kind == TokenKind::kName && look().is_operator("=")) {
      ensure(!out.more_named);
      const std::string name = next().text;
      next();
      const bool twice =
          std::any_of(out.named.begin(), out.named.end(), [&](auto& each) { return each.first == name; });
      if (twice) fail_at(line, "the argument '{}' is given twice", name);
      out.named.emplace_back(name, expression());
    } else {
      ensure(!out.more_positional && !out.more_named && out.named.empty());
      out.positional.push_back(expression());
    }
  }
  expect_operator(")");
  return out;
}

ExprPtr Parser::call(ExprPtr callee) {
  auto node = make<CallExpr>(current().line);
  node->callee = std::move(callee);
  node->arguments = arguments();
  const uint32_t below = std::max(height(node->callee), node->arguments.height());
  return built(std::move(node), below);
}

ExprPtr Parser::filter(ExprPtr subject, bool begun) {
  while (begun || skip_operator("|")) {
    begun = false;
    auto node = make<FilterExpr>(current().line);
    node->name = expect_name();
    while (skip_operator(".")) node->name += "." + expect_name();
    if (!soft_ && find_filter(node->name) == nullptr) unknown_.push_back({node->line, "filter", node->name});
    if (current().is_operator("(")) node->arguments = arguments();
    node->subject = std::move(subject);
    const uint32_t below = std::max(height(node->subject), node->arguments.height());
    subject = built(std::move(node), below);
  }
  return subject;
}

ExprPtr Parser::test(ExprPtr subject) {
  auto node = make<TestExpr>(next().line);
  const bool negated = skip_name("not");
  node->name = expect_name();
  while (skip_operator(".")) node->name += "." + expect_name();
  if (!soft_ && find_test(node->name) == nullptr) unknown_.push_back({node->line, "test", node->name});
  const Token& token = current();
  const bool literal = token.kind == TokenKind::kName || token.kind == TokenKind::kString ||
                       token.kind == TokenKind::kInteger || token.kind == TokenKind::kFloat || token.is_operator("[") ||
                       token.is_operator("{");
  if (token.is_operator("(")) {
    node->arguments = arguments();
  } else if (literal && !token.is_name("else") && !token.is_name("or") && !token.is_name("and")) {
    if (token.is_name("is")) fail_at(token.line, "tests with 'is' cannot follow each other");
    node->arguments.positional.push_back(postfix(primary()));
  }
  node->subject = std::move(subject);
  const uint32_t line = node->line;
  const uint32_t below = std::max(height(node->subject), node->arguments.height());
  ExprPtr out = built(std::move(node), below);
  if (!negated) return out;
  auto inverse = make<UnaryExpr>(line);
  inverse->op = '!';
  inverse->operand = std::move(out);
  return built(std::move(inverse), below + 1);
}

}  // namespace upg::jinja
