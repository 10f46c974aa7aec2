#include "pickle/machine.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <unordered_map>

#include "base/error.h"
#include "pickle/literals.h"

namespace upg::pickle {
namespace {

// A model has about a hundred opcodes for each matrix of many kilobytes.
constexpr uint64_t kFreeSteps = 1'000'000;
constexpr uint64_t kBytesPerStep = 16;  // beyond those
constexpr int kHighestProtocol = 5;

class Machine {
 public:
  Machine(std::span<const std::byte> bytes, std::string where, const ReadOptions& options)
      : text_(reinterpret_cast<const char*>(bytes.data()), bytes.size()),
        options_(options),
        steps_left_(kFreeSteps + bytes.size() / kBytesPerStep),
        owned_left_(2 * uint64_t{bytes.size()} + 4096) {
    tree_.where = std::move(where);
  }

  Tree run() {
    while (!stopped_) {
      spend(1);
      opcode_at_ = at_;
      execute(static_cast<unsigned char>(take(1)[0]));
    }
    tree_.end = at_;
    return std::move(tree_);
  }

 private:
  // --- errors

  template <typename... Args>
  [[noreturn]] void broken(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorCode::kInvalidFile, "{}: not a well-formed pickle: {} at byte {}", tree_.where,
         fmt::format(format, std::forward<Args>(args)...), opcode_at_);
  }

  template <typename... Args>
  [[noreturn]] void refused(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorCode::kUnsupported,
         "{}: refused: {} at byte {}. Only containers, numbers, texts, NumPy arrays, torch tensors and SciPy CSR "
         "matrices "
         "are read from a pickle, and nothing in it is ever run; save the file again with plain NumPy arrays, and do "
         "not "
         "load it in Python unless you trust its source",
         tree_.where, fmt::format(format, std::forward<Args>(args)...), opcode_at_);
  }

  void spend(uint64_t steps) {
    if (steps > steps_left_)
      fail(ErrorCode::kInvalidFile,
           "{}: the pickle has too many values for its size: reading stopped at byte {}; a model's file is mostly "
           "arrays",
           tree_.where, opcode_at_);
    steps_left_ -= steps;
  }

  // --- input

  std::string_view take(uint64_t count) {
    if (count > text_.size() - at_) broken("{} bytes are announced, {} are left", count, text_.size() - at_);
    const std::string_view taken = text_.substr(at_, count);
    at_ += count;
    return taken;
  }

  template <typename T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }

  // Without its newline.
  std::string_view line() {
    const size_t end = text_.find('\n', at_);
    if (end == std::string_view::npos) broken("a line without end");
    const std::string_view taken = text_.substr(at_, end - at_);
    at_ = end + 1;
    return taken;
  }

  // Counts decoded strings, so that no few bytes can ask for the same long text over and over.
  std::string_view own(std::optional<std::string> text, std::string_view what) {
    if (!text) broken("{} that cannot be read", what);
    if (text->size() > owned_left_)
      fail(ErrorCode::kInvalidFile, "{}: the pickle decodes more text than it holds: reading stopped at byte {}",
           tree_.where, opcode_at_);
    owned_left_ -= text->size();
    return tree_.owned.emplace_back(std::move(*text));
  }

  // --- stack

  size_t fence() const { return marks_.empty() ? 0 : marks_.back(); }

  void push(Ref ref) { stack_.push_back(ref); }

  Ref add(Value value) {
    value.at = opcode_at_;
    tree_.values.push_back(std::move(value));
    return static_cast<Ref>(tree_.values.size() - 1);  // steps keep them far below 2^32
  }

  void push(Value value) { push(add(std::move(value))); }
  void push_number(Kind kind, int64_t value) { push(Value{.kind = kind, .number = value}); }
  void push_bytes(Kind kind, std::string_view bytes) { push(Value{.kind = kind, .bytes = bytes}); }
  void push_real(double value) { push(Value{.kind = Kind::kFloat, .real = value}); }

  Value& value(Ref ref) { return tree_.values[ref]; }

  Ref pop() {
    if (stack_.size() <= fence()) broken("a value is missing on the stack");
    const Ref ref = stack_.back();
    stack_.pop_back();
    return ref;
  }

  Ref peek() const {
    if (stack_.size() <= fence()) broken("a value is missing on the stack");
    return stack_.back();
  }

  void pop_value_or_mark() {
    if (!marks_.empty() && marks_.back() == stack_.size())
      marks_.pop_back();
    else
      pop();
  }

  std::vector<Ref> pop_to_mark() {
    if (marks_.empty()) broken("a mark is missing on the stack");
    std::vector<Ref> items(stack_.begin() + static_cast<ptrdiff_t>(marks_.back()), stack_.end());
    stack_.resize(marks_.back());
    marks_.pop_back();
    return items;
  }

  std::vector<Ref> pop_several(size_t count) {
    std::vector<Ref> items(count);
    for (size_t i = count; i > 0; --i) items[i - 1] = pop();
    return items;
  }

  void push_sequence(Kind kind, std::vector<Ref> items) { push(Value{.kind = kind, .items = std::move(items)}); }

  void push_dict(std::vector<Ref> items) {
    if (items.size() % 2 != 0) broken("a dict with a key without value");
    push_sequence(Kind::kDict, std::move(items));
  }

  void extend(Kind kind, const std::vector<Ref>& items) {
    Value& target = value(peek());
    if (target.kind != kind) refused("{} is extended as {}", kind_name(target.kind), kind_name(kind));
    if (kind == Kind::kDict && items.size() % 2 != 0) broken("a dict with a key without value");
    target.items.insert(target.items.end(), items.begin(), items.end());
  }

  // --- memo

  void put(uint64_t index) {
    if (index > 0xffffffff) broken("memo index {}", index);
    memo_[static_cast<uint32_t>(index)] = peek();
  }

  void get(uint64_t index) {
    const auto found = index > 0xffffffff ? memo_.end() : memo_.find(static_cast<uint32_t>(index));
    if (found == memo_.end()) broken("memo index {}, which was never set,", index);
    push(found->second);
  }

  uint64_t line_index() {
    const auto index = read_decimal(line());
    if (!index || *index < 0) broken("a memo index that is not a number");
    return static_cast<uint64_t>(*index);
  }

  // --- names, calls, states

  void push_global(std::string_view module, std::string_view name) { push(global_value(module, name)); }

  Ref global_value(std::string_view module, std::string_view name) {
    const Global* global = find_global(module, name);
    if (global == nullptr) refused("{}.{}", shown(module), shown(name));
    return add(Value{.kind = Kind::kGlobal, .global = global});
  }

  static std::string global_name(const Global& global) { return fmt::format("{}.{}", global.module, global.name); }

  // What REDUCE and NEWOBJ do with the value in the place of a function or class.
  const Global& called(Ref ref) {
    const Value& callee = value(ref);
    if (callee.kind != Kind::kGlobal) refused("a call of {}", kind_name(callee.kind));
    return *callee.global;
  }

  const std::vector<Ref>& arguments(Ref ref) {
    const Value& args = value(ref);
    if (args.kind != Kind::kTuple) refused("a call with {} in place of a tuple of arguments", kind_name(args.kind));
    return args.items;
  }

  void reduce() {
    const Ref args_ref = pop();
    const Global& callee = called(pop());
    const std::vector<Ref>& args = arguments(args_ref);
    if (!is_callable(callee)) refused("a call of {}", global_name(callee));
    const auto odd_arguments = [&]() {
      refused("{} called with {} arguments of other types", global_name(callee), args.size());
    };
    const auto arg = [&](size_t i) -> const Value& { return value(args[i]); };
    switch (callee.role) {
      case Role::kOrderedDict:
        push(ordered_dict(callee, args));
        return;
      case Role::kEncode:
        if (args.size() != 2 || !is_text(arg(0)) || !is_latin1(arg(1))) odd_arguments();
        push_bytes(Kind::kBytes, own(utf8_to_latin1(arg(0).bytes), "Latin-1 text"));
        return;
      case Role::kBytes:
        if (!args.empty()) odd_arguments();
        push_bytes(Kind::kBytes, {});
        return;
      case Role::kBytearray:
        if (args.empty()) {
          push_bytes(Kind::kBytes, {});
        } else if (args.size() == 1 && (arg(0).kind == Kind::kBytes || arg(0).kind == Kind::kString)) {
          push_bytes(Kind::kBytes, arg(0).bytes);
        } else if (args.size() == 2 && is_text(arg(0)) && is_latin1(arg(1))) {
          push_bytes(Kind::kBytes, own(utf8_to_latin1(arg(0).bytes), "Latin-1 text"));
        } else {
          odd_arguments();
        }
        return;
      case Role::kSize:
        if (args.size() != 1 || (arg(0).kind != Kind::kTuple && arg(0).kind != Kind::kList)) odd_arguments();
        push(args[0]);
        return;
      case Role::kReconstructor:
        if (args.size() != 3 || arg(0).kind != Kind::kGlobal || arg(1).kind != Kind::kGlobal ||
            arg(1).global->role != Role::kObjectType || arg(2).kind != Kind::kNone)
          odd_arguments();
        instance(args[0], kNoRef);
        return;
      default:
        push(Value{.kind = Kind::kObject, .global = &callee, .args = args_ref});
    }
  }

  static bool is_latin1(const Value& encoding) {
    return is_text(encoding, "latin1") || is_text(encoding, "latin-1") || is_text(encoding, "iso-8859-1");
  }

  Value ordered_dict(const Global& callee, const std::vector<Ref>& args) {
    Value dict{.kind = Kind::kDict, .global = &callee};
    if (args.empty()) return dict;
    if (args.size() != 1 || value(args[0]).kind != Kind::kList)
      refused("{} called with other arguments", global_name(callee));
    const std::vector<Ref>& pairs = value(args[0]).items;
    spend(pairs.size());
    for (const Ref ref : pairs) {
      const Value& pair = value(ref);
      if ((pair.kind != Kind::kList && pair.kind != Kind::kTuple) || pair.items.size() != 2)
        refused("{} called with other arguments", global_name(callee));
      dict.items.insert(dict.items.end(), pair.items.begin(), pair.items.end());
    }
    return dict;
  }

  // An instance without arguments; its state comes by BUILD. `args`: a tuple that must be empty, or none.
  void instance(Ref class_ref, Ref args) {
    const Global& made = called(class_ref);
    if (!is_class(made)) refused("an instance of {}", global_name(made));
    if (args != kNoRef && !arguments(args).empty()) refused("an instance of {} with arguments", global_name(made));
    push(Value{.kind = Kind::kObject, .global = &made});
  }

  void build() {
    const Ref state = pop();
    Value& target = value(peek());
    if (target.kind == Kind::kDict && target.global != nullptr)
      return;  // attributes of an OrderedDict: torch's _metadata
    if (target.kind == Kind::kGlobal) refused("a change of {}", global_name(*target.global));
    if (target.kind != Kind::kObject) refused("a state for {}", kind_name(target.kind));
    if (target.state != kNoRef) refused("a second state for {}", global_name(*target.global));
    target.state = state;
  }

  void stack_global() {
    const Ref name = pop();
    const Ref module = pop();
    for (const Ref ref : {module, name})
      if (!is_text(value(ref))) refused("a name that is made of {}", kind_name(value(ref).kind));
    push_global(value(module).bytes, value(name).bytes);
  }

  Ref global_line() {
    const std::string_view module = line();
    return global_value(module, line());
  }

  void new_object() {
    const Ref args = pop();
    instance(pop(), args);
  }

  void no_keywords(const Value& keywords) {
    if (keywords.kind != Kind::kDict || !keywords.items.empty()) refused("a call with keywords");
  }

  // INST, and OBJ whose class is the first of `items`: what lies above the mark.
  void old_instance(Ref class_ref, std::vector<Ref> items) {
    if (class_ref == kNoRef) {
      if (items.empty()) broken("an instance of nothing");
      class_ref = items.front();
      items.erase(items.begin());
    }
    if (!items.empty()) refused("{} called with {} arguments", global_name(called(class_ref)), items.size());
    instance(class_ref, kNoRef);
  }

  void global_instance() {
    const Ref class_ref = global_line();
    old_instance(class_ref, pop_to_mark());
  }

  void persistent_id() {
    const Ref id = pop();
    if (!options_.persistent_ids) refused("a persistent id: data that lie outside the pickle,");
    if (value(id).kind != Kind::kTuple) refused("a persistent id that is {}", kind_name(value(id).kind));
    push(Value{.kind = Kind::kStorage, .args = id});
  }

  // --- numbers

  void push_wide_int(std::string_view bytes) {
    if (bytes.size() > sizeof(int64_t)) return push_bytes(Kind::kBigInt, bytes);
    int64_t number = !bytes.empty() && (bytes.back() & 0x80) != 0 ? -1 : 0;
    std::memcpy(&number, bytes.data(), bytes.size());
    push_number(Kind::kInt, number);
  }

  void push_decimal(std::string_view digits) {
    const auto number = read_decimal(digits);
    if (!number) broken("an integer that is not one of 64 bits");
    push_number(Kind::kInt, *number);
  }

  void push_int_line(std::string_view text) {
    if (text == "00" || text == "01") return push_number(Kind::kBool, text == "01");
    push_decimal(text);
  }

  void push_long_line(std::string_view text) { push_decimal(text.substr(0, text.size() - text.ends_with('L'))); }

  void push_float_line(std::string_view text) {
    const auto real = read_real(text);
    if (!real) broken("a float that is not one");
    push_real(*real);
  }

  double big_endian_real() {
    uint64_t bits = 0;
    for (const char c : take(8)) bits = bits << 8 | static_cast<unsigned char>(c);
    return std::bit_cast<double>(bits);
  }

  std::string_view counted_by_signed() {
    const auto count = number<int32_t>();
    if (count < 0) broken("a length of {}", count);
    return take(static_cast<uint64_t>(count));
  }

  void next_buffer() {
    if (next_buffer_ == options_.buffers.size()) refused("a buffer that lies outside the pickle,");
    const std::span<const std::byte> buffer = options_.buffers[next_buffer_++];
    push_bytes(Kind::kBytes, {reinterpret_cast<const char*>(buffer.data()), buffer.size()});
  }

  // --- opcodes

  void check_protocol(int protocol) {
    if (protocol > kHighestProtocol) broken("protocol {}", protocol);
  }

  void check_frame(uint64_t length) {
    if (length > text_.size() - at_) broken("a frame of {} bytes, of which {} are left,", length, text_.size() - at_);
  }

  // One line an opcode, as the protocols' lists have them.
  // clang-format off
  void execute(unsigned char opcode) {
    switch (opcode) {
      case '(': return marks_.push_back(stack_.size());
      case '.': tree_.root = pop(); stopped_ = true; return;
      case '0': return pop_value_or_mark();
      case '1': pop_to_mark(); return;
      case '2': return push(peek());

      case 'N': return push(Value{});
      case 0x88: return push_number(Kind::kBool, 1);
      case 0x89: return push_number(Kind::kBool, 0);
      case 'I': return push_int_line(line());
      case 'L': return push_long_line(line());
      case 'J': return push_number(Kind::kInt, number<int32_t>());
      case 'K': return push_number(Kind::kInt, number<uint8_t>());
      case 'M': return push_number(Kind::kInt, number<uint16_t>());
      case 0x8a: return push_wide_int(take(number<uint8_t>()));
      case 0x8b: return push_wide_int(counted_by_signed());
      case 'F': return push_float_line(line());
      case 'G': return push_real(big_endian_real());

      case 'S': return push_bytes(Kind::kString, own(read_quoted(line()), "a string"));
      case 'T': return push_bytes(Kind::kString, counted_by_signed());
      case 'U': return push_bytes(Kind::kString, take(number<uint8_t>()));
      case 'V': return push_bytes(Kind::kText, own(read_raw_unicode(line()), "a text"));
      case 'X': return push_bytes(Kind::kText, take(number<uint32_t>()));
      case 0x8c: return push_bytes(Kind::kText, take(number<uint8_t>()));
      case 0x8d: return push_bytes(Kind::kText, take(number<uint64_t>()));
      case 'B': return push_bytes(Kind::kBytes, take(number<uint32_t>()));
      case 'C': return push_bytes(Kind::kBytes, take(number<uint8_t>()));
      case 0x8e: case 0x96: return push_bytes(Kind::kBytes, take(number<uint64_t>()));
      case 0x97: return next_buffer();
      case 0x98: peek(); return;  // read-only: so is everything here

      case ')': return push_sequence(Kind::kTuple, {});
      case 't': return push_sequence(Kind::kTuple, pop_to_mark());
      case 0x85: return push_sequence(Kind::kTuple, pop_several(1));
      case 0x86: return push_sequence(Kind::kTuple, pop_several(2));
      case 0x87: return push_sequence(Kind::kTuple, pop_several(3));
      case ']': return push_sequence(Kind::kList, {});
      case 'l': return push_sequence(Kind::kList, pop_to_mark());
      case 'a': return extend(Kind::kList, pop_several(1));
      case 'e': return extend(Kind::kList, pop_to_mark());
      case '}': return push_sequence(Kind::kDict, {});
      case 'd': return push_dict(pop_to_mark());
      case 's': return extend(Kind::kDict, pop_several(2));
      case 'u': return extend(Kind::kDict, pop_to_mark());
      case 0x8f: return push_sequence(Kind::kSet, {});
      case 0x90: return extend(Kind::kSet, pop_to_mark());
      case 0x91: return push_sequence(Kind::kSet, pop_to_mark());

      case 'g': return get(line_index());
      case 'h': return get(number<uint8_t>());
      case 'j': return get(number<uint32_t>());
      case 'p': return put(line_index());
      case 'q': return put(number<uint8_t>());
      case 'r': return put(number<uint32_t>());
      case 0x94: return put(memo_.size());

      case 'c': return push(global_line());
      case 0x93: return stack_global();
      case 'R': return reduce();
      case 'b': return build();
      case 0x81: return new_object();
      case 0x92: no_keywords(value(pop())); return new_object();
      case 'i': return global_instance();
      case 'o': return old_instance(kNoRef, pop_to_mark());
      case 'P': refused("a persistent id, \"{}\",", shown(line()));
      case 'Q': return persistent_id();
      case 0x82: refused("the extension code {}", number<uint8_t>());
      case 0x83: refused("the extension code {}", number<uint16_t>());
      case 0x84: refused("the extension code {}", number<int32_t>());

      case 0x80: return check_protocol(number<uint8_t>());
      case 0x95: return check_frame(number<uint64_t>());
      default: broken("opcode 0x{:02x}, which no protocol has,", opcode);
    }
  }
  // clang-format on

  std::string_view text_;
  const ReadOptions& options_;
  uint64_t at_ = 0;
  uint64_t opcode_at_ = 0;
  uint64_t steps_left_;
  uint64_t owned_left_;
  bool stopped_ = false;
  size_t next_buffer_ = 0;
  Tree tree_;
  std::vector<Ref> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint32_t, Ref> memo_;
};

}  // namespace

Tree read_pickle(std::span<const std::byte> bytes, std::string where, const ReadOptions& options) {
  return Machine(bytes, std::move(where), options).run();
}

}  // namespace upg::pickle
