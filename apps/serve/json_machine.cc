#include "json_machine.h"

namespace upg::serve {
namespace {

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

}  // namespace

void JsonMachine::finish_with_object() {
  closing_ = open_.size();
  object_next_ = true;
}

bool JsonMachine::push(std::string_view bytes) {
  for (char byte : bytes)
    if (!push(byte)) return false;
  return true;
}

bool JsonMachine::open(char bracket, State next) {
  if (open_.size() == kMaxDepth) return false;
  open_ += bracket;
  object_next_ = false;
  state_ = next;
  return true;
}

bool JsonMachine::end_value() {
  state_ = open_.empty() ? State::kDone : State::kAfter;
  return true;
}

bool JsonMachine::close(char bracket) {
  if (open_.empty() || open_.back() != (bracket == '}' ? '{' : '[')) return false;
  open_.pop_back();
  return end_value();
}

bool JsonMachine::begin_value(char c) {
  if (c == '{') return open(c, State::kFirstKey);
  if (object_next_) return false;
  if (c == '[') return open(c, State::kFirstItem);
  key_ = false;
  if (c == '"') return state_ = State::kString, true;
  if (c == '-') return state_ = State::kMinus, true;
  if (is_digit(c)) return state_ = c == '0' ? State::kZero : State::kDigits, true;
  for (const char* literal : {"true", "false", "null"})
    if (c == literal[0]) return literal_ = literal + 1, state_ = State::kLiteral, true;
  return false;
}

bool JsonMachine::after(char c) {
  if (c == '}' || c == ']') return close(c);
  if (c != ',' || open_.size() <= closing_) return false;
  state_ = open_.back() == '{' ? State::kKey : State::kValue;
  return true;
}

// A number ends with what comes after it.
bool JsonMachine::end_number(char c) {
  end_value();
  return push(c);
}

bool JsonMachine::push(char c) {
  const bool between = state_ <= State::kAfter;
  if (between && is_space(c)) return ++space_ <= kMaxSpace;
  space_ = 0;
  switch (state_) {
    case State::kValue:
      return begin_value(c);
    case State::kFirstItem:
      return c == ']' ? close(c) : begin_value(c);
    case State::kFirstKey:
      if (c == '}') return close(c);
      [[fallthrough]];
    case State::kKey:
      key_ = true;
      state_ = State::kString;
      return c == '"';
    case State::kColon:
      state_ = State::kValue;
      return c == ':';
    case State::kAfter:
      return after(c);
    case State::kString:
      if (c == '\\') return state_ = State::kEscape, true;
      if (c == '"') return key_ ? (state_ = State::kColon, true) : end_value();
      return static_cast<unsigned char>(c) >= 0x20;
    case State::kEscape:
      hex_ = 4;
      state_ = c == 'u' ? State::kHex : State::kString;
      return std::string_view("\"\\/bfnrtu").find(c) != std::string_view::npos;
    case State::kHex:
      if (--hex_ == 0) state_ = State::kString;
      return is_hex(c);
    case State::kLiteral:
      if (c != *literal_++) return false;
      return *literal_ != '\0' || end_value();
    case State::kMinus:
      state_ = c == '0' ? State::kZero : State::kDigits;
      return is_digit(c);
    case State::kDigits:
      if (is_digit(c)) return true;
      [[fallthrough]];
    case State::kZero:
      if (c == '.') return state_ = State::kPoint, true;
      if (c == 'e' || c == 'E') return state_ = State::kExponent, true;
      return end_number(c);
    case State::kPoint:
      state_ = State::kFraction;
      return is_digit(c);
    case State::kFraction:
      if (is_digit(c)) return true;
      if (c == 'e' || c == 'E') return state_ = State::kExponent, true;
      return end_number(c);
    case State::kExponent:
      if (c == '+' || c == '-') return state_ = State::kExponentSign, true;
      [[fallthrough]];
    case State::kExponentSign:
      state_ = State::kExponentDigits;
      return is_digit(c);
    case State::kExponentDigits:
      return is_digit(c) || end_number(c);
    case State::kDone:
      return false;
  }
  return false;
}

}  // namespace upg::serve
