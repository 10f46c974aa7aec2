// What the parser makes of a template. Nodes evaluate themselves: expressions in eval_expr.cc, statements in
// eval_stmt.cc.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/runtime.h"
#include "text/jinja/value.h"

namespace upg::jinja {

using Symbol = uint32_t;               // a name of the template
constexpr Symbol kCapturedSymbol = 0;  // what a filter block or set block has captured

struct Program;

/// Variables of one scope. Assignments go here; lookups climb.
struct Frame {
  Frame(const Program& p, std::shared_ptr<Frame> up) : program(p), parent(std::move(up)) {}
  const Value* find(Symbol symbol) const;
  void set(Symbol symbol, Value value);

  const Program& program;
  std::shared_ptr<Frame> parent;  // of the enclosing scope; nullptr for the template's
  std::vector<std::pair<Symbol, Value>> values;
  const DictData* variables = nullptr;  // of the template's frame: what render() was given
};
using FramePtr = std::shared_ptr<Frame>;

struct Expr {
  explicit Expr(uint32_t at) : line(at) {}
  virtual ~Expr() = default;
  /// Counts a step and a level, then evaluates.
  Value value(Runtime& rt, const FramePtr& frame) const;
  virtual bool is_call() const { return false; }
  uint32_t line;
  uint32_t height = 1;  // of the tree below, bounded by the parser

 protected:
  virtual Value evaluate(Runtime& rt, const FramePtr& frame) const = 0;
};
using ExprPtr = std::unique_ptr<Expr>;

enum class Flow { kNext, kBreak, kContinue };

struct Stmt {
  explicit Stmt(uint32_t at) : line(at) {}
  virtual ~Stmt() = default;
  Flow run(Runtime& rt, const FramePtr& frame) const;
  uint32_t line;

 protected:
  virtual Flow execute(Runtime& rt, const FramePtr& frame) const = 0;
};
using Body = std::vector<std::unique_ptr<Stmt>>;

Flow run_body(Runtime& rt, const Body& body, const FramePtr& frame);

// --- Expressions

#define UPG_JINJA_EXPR(Name)               \
  explicit Name(uint32_t at) : Expr(at) {} \
  Value evaluate(Runtime& rt, const FramePtr& frame) const override

struct ConstExpr : Expr {
  UPG_JINJA_EXPR(ConstExpr);
  Value constant;
};

struct NameExpr : Expr {
  UPG_JINJA_EXPR(NameExpr);
  Symbol symbol = 0;
};

struct SequenceExpr : Expr {
  UPG_JINJA_EXPR(SequenceExpr);
  bool tuple = false;
  std::vector<ExprPtr> items;
};

struct DictExpr : Expr {
  UPG_JINJA_EXPR(DictExpr);
  std::vector<std::pair<ExprPtr, ExprPtr>> entries;
};

struct BinaryExpr : Expr {
  UPG_JINJA_EXPR(BinaryExpr);
  char op = '+';  // as Runtime::binary has them
  ExprPtr left, right;
};

struct UnaryExpr : Expr {
  UPG_JINJA_EXPR(UnaryExpr);
  char op = '-';  // '-', '+', '!'
  ExprPtr operand;
};

struct LogicExpr : Expr {
  UPG_JINJA_EXPR(LogicExpr);
  bool is_and = false;
  ExprPtr left, right;
};

struct ConcatExpr : Expr {
  UPG_JINJA_EXPR(ConcatExpr);
  std::vector<ExprPtr> parts;
};

enum class Comparison { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kIn, kNotIn };

struct CompareExpr : Expr {
  UPG_JINJA_EXPR(CompareExpr);
  ExprPtr first;
  std::vector<std::pair<Comparison, ExprPtr>> rest;
};

struct ConditionalExpr : Expr {
  UPG_JINJA_EXPR(ConditionalExpr);
  ExprPtr test, then, otherwise;  // `otherwise` may be null
};

struct AttributeExpr : Expr {
  UPG_JINJA_EXPR(AttributeExpr);
  ExprPtr subject;
  std::string name;
};

struct ItemExpr : Expr {
  UPG_JINJA_EXPR(ItemExpr);
  ExprPtr subject, key;
};

struct SliceExpr : Expr {
  UPG_JINJA_EXPR(SliceExpr);
  ExprPtr subject, start, stop, step;  // the last three may be null
};

struct ArgumentList {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr more_positional, more_named;  // *x and **x; may be null
  CallArguments evaluate(Runtime& rt, const FramePtr& frame) const;
  uint32_t height() const;
};

struct CallExpr : Expr {
  UPG_JINJA_EXPR(CallExpr);
  bool is_call() const override { return true; }
  Value call_with_caller(Runtime& rt, const FramePtr& frame, Value caller) const;
  ExprPtr callee;
  ArgumentList arguments;
};

struct FilterExpr : Expr {
  UPG_JINJA_EXPR(FilterExpr);
  ExprPtr subject;
  std::string name;
  ArgumentList arguments;
};

struct TestExpr : Expr {
  UPG_JINJA_EXPR(TestExpr);
  ExprPtr subject;
  std::string name;
  ArgumentList arguments;
};

// --- Statements

/// What is assigned to: a name, an attribute of a namespace, or a tuple of these.
struct Target {
  uint32_t line = 1;
  Symbol symbol = 0;
  std::string attribute;      // of the namespace `symbol`
  std::vector<Target> parts;  // of a tuple
  bool tuple = false;
  void assign(Runtime& rt, const FramePtr& frame, const Value& value) const;
  bool stores(Symbol wanted) const;
};

#define UPG_JINJA_STMT(Name)               \
  explicit Name(uint32_t at) : Stmt(at) {} \
  Flow execute(Runtime& rt, const FramePtr& frame) const override

struct TextStmt : Stmt {
  UPG_JINJA_STMT(TextStmt);
  std::string text;
};

struct PrintStmt : Stmt {
  UPG_JINJA_STMT(PrintStmt);
  std::vector<ExprPtr> values;
};

struct IfStmt : Stmt {
  UPG_JINJA_STMT(IfStmt);
  std::vector<std::pair<ExprPtr, Body>> branches;
  Body otherwise;
};

struct ForStmt : Stmt {
  UPG_JINJA_STMT(ForStmt);
  Flow loop(Runtime& rt, const FramePtr& frame, const Value& sequence, int64_t depth) const;
  Target target;
  ExprPtr sequence, test;  // `test` may be null
  Body body, otherwise;
  bool recursive = false;
  Symbol loop_symbol = 0;
};

struct SetStmt : Stmt {
  UPG_JINJA_STMT(SetStmt);
  Target target;
  ExprPtr value;
};

struct SetBlockStmt : Stmt {
  UPG_JINJA_STMT(SetBlockStmt);
  Target target;
  ExprPtr filter;  // of kCapturedSymbol; may be null
  Body body;
};

struct WithStmt : Stmt {
  UPG_JINJA_STMT(WithStmt);
  std::vector<std::pair<Target, ExprPtr>> assignments;
  Body body;
};

struct MacroDefinition {
  std::string name;
  std::vector<std::pair<Symbol, std::string>> parameters;
  std::vector<ExprPtr> defaults;  // of the last parameters
  Body body;
  Symbol caller = 0, varargs = 0, kwargs = 0;
  bool uses_caller = false, uses_varargs = false, uses_kwargs = false, explicit_caller = false;
};
Value make_macro(Runtime& rt, const MacroDefinition& definition, const FramePtr& frame);

struct MacroStmt : Stmt {
  UPG_JINJA_STMT(MacroStmt);
  Symbol symbol = 0;
  MacroDefinition macro;
};

struct CallBlockStmt : Stmt {
  UPG_JINJA_STMT(CallBlockStmt);
  MacroDefinition macro;
  std::unique_ptr<CallExpr> call;
};

struct FilterBlockStmt : Stmt {
  UPG_JINJA_STMT(FilterBlockStmt);
  ExprPtr filter;
  Body body;
};

/// A body with its own scope: {% block %} and {% generation %}.
struct ScopeStmt : Stmt {
  UPG_JINJA_STMT(ScopeStmt);
  bool sees_locals = true;  // a block sees the template's variables only, unless it is scoped
  Body body;
};

struct FlowStmt : Stmt {
  UPG_JINJA_STMT(FlowStmt);
  Flow flow = Flow::kBreak;
};

/// What is refused only where it is reached: include and the like.
struct RefusedStmt : Stmt {
  UPG_JINJA_STMT(RefusedStmt);
  std::string what;
};

struct Program {
  std::string name;
  std::vector<std::string> symbols;  // names, by Symbol
  Body body;
};

}  // namespace upg::jinja
