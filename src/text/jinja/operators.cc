// Arithmetic with Python's meaning.
#include <cmath>
#include <limits>

#include "text/jinja/runtime.h"
#include "text/jinja/text_ops.h"

namespace upg::jinja {
namespace {

[[noreturn]] void too_large(const Runtime& rt) { rt.fail("a number needs more than 64 bits"); }

int64_t floor_divide(const Runtime& rt, int64_t a, int64_t b) {
  if (b == 0) rt.fail("integer division or modulo by zero");
  if (b == -1 && a == std::numeric_limits<int64_t>::min()) too_large(rt);
  return a / b - ((a % b != 0) && ((a < 0) != (b < 0)));
}

int64_t floor_modulo(const Runtime& rt, int64_t a, int64_t b) {
  if (b == 0) rt.fail("integer division or modulo by zero");
  if (b == -1) return 0;
  const int64_t rest = a % b;
  return rest != 0 && ((rest < 0) != (b < 0)) ? rest + b : rest;
}

double floor_modulo(const Runtime& rt, double a, double b) {
  if (b == 0) rt.fail("float modulo by zero");
  double rest = std::fmod(a, b);
  if (rest != 0) {
    if ((b < 0) != (rest < 0)) rest += b;
  } else {
    rest = std::copysign(0.0, b);
  }
  return rest;
}

double floor_divide(const Runtime& rt, double a, double b) {
  if (b == 0) rt.fail("float floor division by zero");
  const double rest = std::fmod(a, b);
  double quotient = (a - rest) / b;
  if (rest != 0 && ((b < 0) != (rest < 0))) quotient -= 1.0;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double floored = std::floor(quotient);
  return quotient - floored > 0.5 ? floored + 1.0 : floored;
}

double float_power(const Runtime& rt, double a, double b) {
  if (a == 0 && b < 0) rt.fail("0.0 cannot be raised to a negative power");
  if (a < 0 && std::isfinite(a) && std::isfinite(b) && b != std::floor(b))
    rt.fail("a negative number to a broken power is complex, which templates have not");
  const double power = std::pow(a, b);
  if (std::isinf(power) && std::isfinite(a) && std::isfinite(b)) rt.fail("the result of ** is too large");
  return power;
}

Value int_power(const Runtime& rt, int64_t a, int64_t b) {
  if (b < 0) return Value::number(float_power(rt, static_cast<double>(a), static_cast<double>(b)));
  int64_t power = 1;
  if (a == 0 || a == 1) return Value::integer(b == 0 ? 1 : a);
  if (a == -1) return Value::integer(b % 2 == 0 ? 1 : -1);
  for (; b > 0; --b)
    if (__builtin_mul_overflow(power, a, &power)) too_large(rt);
  return Value::integer(power);
}

Value int_binary(const Runtime& rt, char op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool over = false;
  if (op == '+') over = __builtin_add_overflow(a, b, &result);
  if (op == '-') over = __builtin_sub_overflow(a, b, &result);
  if (op == '*') over = __builtin_mul_overflow(a, b, &result);
  if (over) too_large(rt);
  if (op == 'f') result = floor_divide(rt, a, b);
  if (op == '%') result = floor_modulo(rt, a, b);
  if (op == 'p') return int_power(rt, a, b);
  if (op == '/') {
    if (b == 0) rt.fail("division by zero");
    return Value::number(static_cast<double>(static_cast<long double>(a) / static_cast<long double>(b)));
  }
  return Value::integer(result);
}

Value float_binary(const Runtime& rt, char op, double a, double b) {
  if (op == '+') return Value::number(a + b);
  if (op == '-') return Value::number(a - b);
  if (op == '*') return Value::number(a * b);
  if (op == 'f') return Value::number(floor_divide(rt, a, b));
  if (op == '%') return Value::number(floor_modulo(rt, a, b));
  if (op == 'p') return Value::number(float_power(rt, a, b));
  if (b == 0) rt.fail("float division by zero");
  return Value::number(a / b);
}

Value repeat(Runtime& rt, const Value& value, int64_t count) {
  const uint64_t times = count < 0 ? 0 : static_cast<uint64_t>(count);
  if (value.is_string()) {
    const std::string& text = value.as_string();
    uint64_t bytes = 0;
    if (__builtin_mul_overflow(times, static_cast<uint64_t>(text.size()), &bytes)) bytes = UINT64_MAX;
    rt.check_text(bytes);
    std::string out;
    out.reserve(bytes);
    for (uint64_t i = 0; i < times && !text.empty(); ++i) out += text;
    return rt.text(std::move(out), value.is_markup());
  }
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(times, static_cast<uint64_t>(value.items().size() * sizeof(Value)), &bytes))
    bytes = rt.limits.max_bytes + 1;
  rt.charge(std::min(bytes, rt.limits.max_bytes + 1));
  std::vector<Value> items;
  for (uint64_t i = 0; i < times && !value.items().empty(); ++i)
    items.insert(items.end(), value.items().begin(), value.items().end());
  return value.is(Kind::kList) ? rt.list(std::move(items)) : rt.tuple(std::move(items));
}

Value add_texts(Runtime& rt, const Value& a, const Value& b) {
  const bool markup = a.is_markup() || b.is_markup();
  const auto part = [&](const Value& v) {
    return markup && !v.is_markup() ? escape_html(v.as_string()) : v.as_string();
  };
  rt.check_text(a.as_string().size() + b.as_string().size());
  return rt.text(part(a) + part(b), markup);
}

bool repeatable(const Value& value) { return value.is_string() || value.is(Kind::kList) || value.is(Kind::kTuple); }

}  // namespace

Value Runtime::binary(char op, const Value& a, const Value& b) {
  if (op == '%' && a.is_string()) return text(percent_format(*this, a.as_string(), b), a.is_markup());
  if (a.is_undefined()) fail_undefined(a);
  if (b.is_undefined()) fail_undefined(b);
  if (a.is_integral() && b.is_integral()) return int_binary(*this, op, a.as_int(), b.as_int());
  if (a.is_number() && b.is_number()) return float_binary(*this, op, a.as_double(), b.as_double());
  if (op == '+' && a.is_string() && b.is_string()) return add_texts(*this, a, b);
  if (op == '+' && a.kind() == b.kind() && (a.is(Kind::kList) || a.is(Kind::kTuple))) {
    charge((a.items().size() + b.items().size()) * sizeof(Value));
    std::vector<Value> items = a.items();
    items.insert(items.end(), b.items().begin(), b.items().end());
    return a.is(Kind::kList) ? list(std::move(items)) : tuple(std::move(items));
  }
  if (op == '*' && repeatable(a) && b.is_integral()) return repeat(*this, a, b.as_int());
  if (op == '*' && repeatable(b) && a.is_integral()) return repeat(*this, b, a.as_int());
  if (op == '+' && a.is_string()) fail("can only concatenate str (not \"{}\") to str", type_name(b));
  const std::string sign = op == 'f' ? "//" : op == 'p' ? "** or pow()" : std::string(1, op);
  fail("unsupported operand type(s) for {}: '{}' and '{}'", sign, type_name(a), type_name(b));
}

Value Runtime::negate(const Value& value, bool minus) {
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is_number()) fail("bad operand type for unary {}: '{}'", minus ? '-' : '+', type_name(value));
  if (value.is(Kind::kFloat)) return Value::number(minus ? -value.as_double() : value.as_double());
  if (minus && value.as_int() == std::numeric_limits<int64_t>::min()) too_large(*this);
  return Value::integer(minus ? -value.as_int() : value.as_int());
}

}  // namespace upg::jinja
