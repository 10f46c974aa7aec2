// Values of templates: small, shared and, but for namespaces, immutable. Their meaning is Python's; operations on them
// that can fail or cost something take the Runtime.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace upg::jinja {

class Runtime;
class Value;
struct CallArguments;

enum class Kind : uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kList,
  kTuple,
  kDict,
  kView,      // what dict.keys(), values() and items() give
  kRange,     // what range() gives
  kIterator,  // runs once: what map, select and other filters give
  kObject,    // functions, methods, macros, namespaces, loop, cyclers, joiners
};

/// What a value points to. `depth` counts containers within containers and is bounded, so that nothing that walks or
/// destroys a value recurses too far.
struct Shared {
  virtual ~Shared() = default;
  uint32_t depth = 0;
};

class Value {
 public:
  Value() = default;  // undefined, without a story
  static Value none() { return Value(Kind::kNone); }
  static Value boolean(bool b) { return Value(Kind::kBool, b ? 1 : 0); }
  static Value integer(int64_t i) { return Value(Kind::kInt, i); }
  static Value number(double d);
  /// Without being charged to a Runtime: for texts of the template and its variables.
  static Value text(std::string text, bool markup = false);
  Value(Kind kind, std::shared_ptr<Shared> shared) : kind_(kind), shared_(std::move(shared)) {}

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_undefined() const { return kind_ == Kind::kUndefined; }
  bool is_none() const { return kind_ == Kind::kNone; }
  bool is_string() const { return kind_ == Kind::kString; }
  bool is_integral() const { return kind_ == Kind::kInt || kind_ == Kind::kBool; }
  bool is_number() const { return is_integral() || kind_ == Kind::kFloat; }
  bool is_markup() const;

  bool as_bool() const { return integer_ != 0; }
  int64_t as_int() const { return integer_; }  // of kInt and kBool
  double as_double() const;                    // of any number
  const std::string& as_string() const;        // of kString
  const std::vector<Value>& items() const;     // of kList and kTuple
  template <typename T>
  T& as() const {
    return static_cast<T&>(*shared_);
  }
  const std::shared_ptr<Shared>& shared() const { return shared_; }
  uint32_t depth() const { return shared_ ? shared_->depth : 0; }

 private:
  explicit Value(Kind kind, int64_t integer = 0) : kind_(kind), integer_(integer) {}
  Kind kind_ = Kind::kUndefined;
  union {
    int64_t integer_ = 0;
    double double_;
  };
  std::shared_ptr<Shared> shared_;
};

struct UndefinedStory : Shared {
  std::string text;  // "'x' is undefined": the message of the error if it is used
};

struct TextData : Shared {
  std::string text;  // valid UTF-8
  bool markup = false;
};

struct SequenceData : Shared {
  std::vector<Value> items;
  bool group = false;  // a tuple of groupby: has the attributes grouper and list
};

/// Keeps the order of insertion. Keys are hashable: no lists, no dicts.
struct DictData : Shared {
  std::vector<std::pair<Value, Value>> entries;
  const Value* find(const Value& key) const;  // nullptr where it has none; `key` is hashable
  void set(const Value& key, Value value);
  const Value* find(std::string_view key) const;

 private:
  size_t locate(const Value& key) const;  // entries.size() where it has none
  void index_entries();
  std::unordered_map<std::string, size_t> index_;  // by key_text(), of dicts that are not small
};

/// Equal for keys that Python finds equal; nullopt for what Python cannot hash.
std::optional<std::string> key_text(const Value& key);

enum class ViewPart : uint8_t { kKeys, kValues, kItems };

struct ViewData : Shared {
  std::shared_ptr<DictData> dict;
  ViewPart part = ViewPart::kKeys;
};

struct RangeData : Shared {
  int64_t start = 0, stop = 0, step = 1;
  int64_t size() const;
  int64_t at(int64_t i) const { return start + i * step; }
};

/// One way through a sequence.
struct Cursor {
  virtual ~Cursor() = default;
  virtual bool next(Runtime& rt, Value& out) = 0;
};

struct IteratorData : Shared {
  std::shared_ptr<Cursor> cursor;
};

struct ObjectData : Shared {
  virtual std::string_view type_name() const = 0;
  virtual std::string repr(Runtime& rt) const;
  virtual bool callable() const { return false; }
  virtual Value call(Runtime& rt, CallArguments& arguments);
  /// False where there is no attribute of that name.
  virtual bool attribute(Runtime& rt, std::string_view name, Value& out) const;
  virtual std::optional<int64_t> length(Runtime&) const { return std::nullopt; }
};

struct NamespaceData : ObjectData {
  std::shared_ptr<DictData> attributes = std::make_shared<DictData>();
  std::string_view type_name() const override { return "Namespace"; }
  std::string repr(Runtime& rt) const override;
  bool attribute(Runtime& rt, std::string_view name, Value& out) const override;
};

struct CallArguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
  const Value* find(std::string_view name) const;
  std::optional<Value> take(std::string_view name);
};

std::string_view type_name(const Value& value);  // "str", "NoneType"
bool truth(Runtime& rt, const Value& value);
bool equal(Runtime& rt, const Value& a, const Value& b);
bool same(const Value& a, const Value& b);  // Python's `is`
enum class Order { kLess, kLessEqual, kGreater, kGreaterEqual };
bool ordered(Runtime& rt, const Value& a, const Value& b, Order order);
bool contains(Runtime& rt, const Value& container, const Value& item);

/// len(), or nullopt where Python has none.
std::optional<int64_t> length_of(Runtime& rt, const Value& value);
/// iter(): fails where Python cannot iterate.
std::shared_ptr<Cursor> iterate(Runtime& rt, const Value& value);
bool is_iterable(const Value& value);
std::vector<Value> to_vector(Runtime& rt, const Value& value);

std::string to_text(Runtime& rt, const Value& value);  // str()
std::string repr(Runtime& rt, const Value& value);
std::string float_text(double value);
void append_text_repr(std::string& out, std::string_view text);

struct JsonStyle {
  bool ensure_ascii = false;
  std::optional<std::string> indent{};  // of one level
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
};
std::string to_json(Runtime& rt, const Value& value, const JsonStyle& style);

}  // namespace upg::jinja
