// Which bytes may come next in a JSON text. Small enough to be copied for every token of a vocabulary.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace upg::serve {

class JsonMachine {
 public:
  /// The first value must be an object.
  JsonMachine() = default;

  /// False where `byte` may not come: the machine is then of no use any more.
  bool push(char byte);
  bool push(std::string_view bytes);
  /// What is open now may only be closed after its present value, which must be an object.
  void finish_with_object();

  bool done() const { return state_ == State::kDone; }
  /// Whether anything but quotes, backslashes and control characters goes.
  bool in_string() const { return state_ == State::kString; }

 private:
  enum class State : uint8_t {
    kValue,
    kFirstItem,
    kFirstKey,
    kKey,
    kColon,
    kAfter,
    kString,
    kEscape,
    kHex,
    kLiteral,
    kMinus,
    kZero,
    kDigits,
    kPoint,
    kFraction,
    kExponent,
    kExponentSign,
    kExponentDigits,
    kDone
  };
  static constexpr size_t kMaxDepth = 32;
  static constexpr int kMaxSpace = 24;  // on end: a model that is not let out of an object would fill it with space

  bool begin_value(char byte);
  bool open(char bracket, State next);
  bool close(char bracket);
  bool after(char byte);
  bool end_value();
  bool end_number(char byte);

  State state_ = State::kValue;
  bool key_ = false;         // the string is one
  bool object_next_ = true;  // the value must be an object
  uint8_t hex_ = 0;          // digits that are missing
  int space_ = 0;
  size_t closing_ = 0;        // so many open brackets get nothing more after their present value
  std::string open_;          // brackets
  const char* literal_ = "";  // what is missing of true, false or null
};

}  // namespace upg::serve
