#include "constraints.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "chat_prompt.h"
#include "errors.h"
#include "json_machine.h"
#include "models.h"

namespace upg::serve {
namespace {

// What may come next: first one of some texts where there are any, then JSON.
class Progress {
 public:
  explicit Progress(JsonMachine machine, const std::vector<std::string>* choices = nullptr)
      : machine_(std::move(machine)), choices_(choices) {}

  bool push(char byte) {
    if (choices_ == nullptr) return machine_.push(byte);
    chosen_ += byte;
    for (const std::string& choice : *choices_) {
      if (choice == chosen_) {
        choices_ = nullptr;
        if (!machine_.push(chosen_)) return false;
        machine_.finish_with_object();
        return true;
      }
      if (choice.starts_with(chosen_)) return true;
    }
    return false;
  }
  bool done() const { return machine_.done(); }
  bool in_string() const { return choices_ == nullptr && machine_.in_string(); }

 private:
  JsonMachine machine_;
  const std::vector<std::string>* choices_;
  std::string chosen_;
};

class JsonConstraint : public TokenConstraint {
 public:
  /// `model` must outlive the generation; a request holds it.
  JsonConstraint(ServedModel& model, JsonMachine machine, std::vector<std::string> choices = {})
      : tokens_(model.vocabulary.tokens(*model.engine)),
        ends_(model.engine->end_tokens()),
        choices_(std::move(choices)),
        progress_(std::move(machine), choices_.empty() ? nullptr : &choices_) {
    ends_.insert(ends_.end(), model.ends.tokens.begin(), model.ends.tokens.end());
    if (ends_.empty())
      throw RequestError(400, "this model has no end token, so an answer in JSON could not end", "response_format");
  }

  void mask(std::span<float> logits) override {
    std::vector<float> kept(ends_.size());
    for (size_t i = 0; i < ends_.size(); ++i) kept[i] = logits[static_cast<size_t>(ends_[i])];
    const bool in_string = progress_.in_string();
    for (size_t id = 0; id < logits.size(); ++id)
      if (id >= tokens_.size() || !(in_string && tokens_[id].plain ? true : fits(tokens_[id].bytes)))
        logits[id] = -INFINITY;
    for (size_t i = 0; i < ends_.size(); ++i)
      logits[static_cast<size_t>(ends_[i])] = progress_.done() ? kept[i] : -INFINITY;
  }

  void accept(int32_t token) override {
    for (char byte : tokens_.at(static_cast<size_t>(token)).bytes) progress_.push(byte);
  }

 private:
  bool fits(const std::string& bytes) const {
    if (bytes.empty() || progress_.done()) return false;
    Progress copy = progress_;
    return std::all_of(bytes.begin(), bytes.end(), [&](char byte) { return copy.push(byte); });
  }

  const std::vector<Vocabulary::Token>& tokens_;
  std::vector<int32_t> ends_;
  std::vector<std::string> choices_;
  Progress progress_;
};

}  // namespace

const std::vector<Vocabulary::Token>& Vocabulary::tokens(const Engine& engine) {
  std::call_once(made_, [&] {
    for (uint64_t id = 0; id < engine.info().vocab_size; ++id) {
      std::string bytes = engine.token_bytes(static_cast<int32_t>(id));
      const std::vector<int32_t> self = {static_cast<int32_t>(id)};
      const bool special = !bytes.empty() &&
                           engine.tokenize(bytes, /*parse_special=*/true, /*add_special=*/false) == self &&
                           engine.tokenize(bytes, /*parse_special=*/false, /*add_special=*/false) != self;
      if (special) bytes.clear();
      const bool plain = !bytes.empty() && std::all_of(bytes.begin(), bytes.end(), [](char c) {
        return static_cast<unsigned char>(c) >= 0x20 && c != '"' && c != '\\';
      });
      tokens_.push_back({std::move(bytes), plain});
    }
  });
  return tokens_;
}

std::shared_ptr<TokenConstraint> read_constraint(ServedModel& model, const Fields& fields, const char* name) {
  const Json* format = fields.object(name);
  if (format == nullptr) return nullptr;
  const std::string type = Fields(*format, name).required_text("type");
  if (type == "text") return nullptr;
  if (type == "json_object") return std::make_shared<JsonConstraint>(model, JsonMachine());
  refuse(name, fmt::format("{}.type \"{}\" is not supported: this server forces answers into JSON (json_object), not "
                           "into a schema",
                           name, type));
}

std::shared_ptr<TokenConstraint> call_constraint(ServedModel& model, const ChatPrompt& prompt) {
  if (prompt.prefix.empty()) return nullptr;
  // The part of the prefix that is JSON already; its first value may be a list of calls, which the machine is told of
  // as a part of an object.
  const std::string_view json = std::string_view(prompt.prefix).substr(prompt.prefix.find('{'));
  JsonMachine machine;
  if (!machine.push(json)) throw RequestError(500, "a tool has a name that is no text");
  std::vector<std::string> choices;
  if (!prompt.named)
    for (const std::string& tool : prompt.tools) choices.push_back(tool + call_middle(*model.tools));
  else
    machine.finish_with_object();
  return std::make_shared<JsonConstraint>(model, std::move(machine), std::move(choices));
}

}  // namespace upg::serve
