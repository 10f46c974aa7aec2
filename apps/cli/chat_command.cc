// chat: a conversation, on a terminal or in a pipe. Answers go to stdout, everything else to stderr.
#include <fmt/format.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <memory>

#include "chat_params.h"
#include "command.h"
#include "line_input.h"
#include "sampling_options.h"
#include "upg/chat.h"
#include "upg/engine.h"

namespace upg::cli {
namespace {

struct Options {
  ModelArguments model;
  SamplingArguments sampling;
  std::string prompt, system, chat_template;
  bool json = false;
};

template <typename... Args>
void note(fmt::format_string<Args...> format, Args&&... args) {
  fmt::print(stderr, format, std::forward<Args>(args)...);
  std::fflush(stderr);
}

class Conversation {
 public:
  Conversation(std::shared_ptr<Engine> engine, const Options& o, GenerateOptions options)
      : engine_(std::move(engine)),
        chat_(engine_, o.model.session),
        options_(std::move(options)),
        json_(o.json),
        on_terminal_(!o.json && ::isatty(STDIN_FILENO)) {
    engine_->check_sampling(options_.sampling);
    options_.progress = [](std::string_view, uint64_t, uint64_t) { return !interrupted.load(); };
    if (!o.system.empty()) chat_.set_system(o.system);
  }

  void run(const std::string& first);

  // The commands; `argument` is what follows the name.
  void help(const std::string& argument);
  void system(const std::string& argument);
  void clear(const std::string& argument);
  void regenerate(const std::string& argument);
  void save(const std::string& argument);
  void load(const std::string& argument);
  void params(const std::string& argument);
  void stats(const std::string& argument);
  void quit(const std::string&) { running_ = false; }

 private:
  void take(const Turn& turn);
  void command(const std::string& line);
  void answer(const std::function<ChatResult(const Chat::Emit&)>& ask);
  void report(const ChatResult& result);
  void stopped(std::string_view what);

  std::shared_ptr<Engine> engine_;
  Chat chat_;
  GenerateOptions options_;
  bool json_, on_terminal_;
  bool running_ = true;
  ChatResult last_, total_;  // total_: counts and seconds
  uint64_t turns_ = 0, generated_ = 0;
};

struct ChatCommand {
  const char* name;
  const char* arguments;
  const char* summary;
  void (Conversation::*run)(const std::string& argument);
};

constexpr ChatCommand kChatCommands[] = {
    {"/help", "", "This list", &Conversation::help},
    {"/system", "[TEXT|\"\"]", "Show the system message, or set or remove it and begin anew", &Conversation::system},
    {"/clear", "", "Begin anew with the same system message", &Conversation::clear},
    {"/regen", "", "Another answer in place of the last, with another seed", &Conversation::regenerate},
    {"/save", "FILE", "Write conversation and parameters as JSON", &Conversation::save},
    {"/load", "FILE", "Go on with a conversation that was saved", &Conversation::load},
    {"/params", "[NAME=VALUE...]", "Show or set temperature, top_p, max_tokens...", &Conversation::params},
    {"/stats", "", "Tokens in the context, speed", &Conversation::stats},
    {"/quit", "", "End, as Ctrl-D does", &Conversation::quit},
};

void Conversation::help(const std::string&) {
  for (const ChatCommand& command : kChatCommands)
    note("  {:<24} {}\n", fmt::format("{} {}", command.name, command.arguments), command.summary);
  note(
      "A line that ends in a backslash goes on in the next. \"\"\" opens a message of several lines and closes it.\n"
      "Ctrl-C stops an answer.\n");
}

void Conversation::system(const std::string& argument) {
  if (argument.empty())
    return chat_.system().empty() ? note("there is no system message\n") : note("{}\n", chat_.system());
  chat_.set_system(argument == "\"\"" ? "" : argument);
}

void Conversation::clear(const std::string&) { chat_.clear(); }

void Conversation::regenerate(const std::string&) {
  if (on_terminal_ && chat_.messages() > 0 && (options_.sampling.temperature == 0 || options_.sampling.top_k == 1))
    note("(the likeliest token is always taken, so the answer stays the same: /params temperature=0.7 changes that)\n");
  answer([&](const Chat::Emit& emit) { return chat_.regenerate(options_, emit); });
}

void Conversation::save(const std::string& argument) {
  if (argument.empty()) throw Error(ErrorCode::kInvalidArgument, "/save needs the name of a file");
  chat_.save(argument, params_json(options_).dump());
  if (on_terminal_) note("{} messages are in {}\n", chat_.messages(), argument);
}

void Conversation::load(const std::string& argument) {
  if (argument.empty()) throw Error(ErrorCode::kInvalidArgument, "/load needs the name of a file");
  GenerateOptions changed = options_;
  chat_.load(argument, [&](std::string_view params) {
    try {
      set_params(nlohmann::json::parse(params), *engine_, changed);
    } catch (const Error& error) {
      throw Error(ErrorCode::kInvalidFile, fmt::format("{}: params: {}", argument, error.what()));
    }
  });
  options_ = std::move(changed);
  if (on_terminal_) note("{} messages are back\n", chat_.messages());
}

void Conversation::params(const std::string& argument) {
  if (!argument.empty()) return set_params(std::string_view(argument), *engine_, options_);
  const nlohmann::ordered_json all = params_json(options_);
  for (const auto& [name, value] : all.items()) note("{}={}\n", name, value.dump());
}

void Conversation::stats(const std::string&) {
  note("context: {} of {} tokens, {} messages\n", chat_.tokens(), chat_.context(), chat_.messages());
  if (turns_ == 0) return;
  note("last answer: {} tokens, {:.1f} tokens/s; prompt {} tokens, {:.1f} tokens/s, and {} from before; {}\n",
       last_.tokens.size(), rate(last_.tokens.size(), last_.generate_seconds), last_.prompt_tokens,
       rate(last_.prompt_tokens, last_.prompt_seconds), last_.reused_tokens, name_of(last_.finish));
  note("all {} answers: {} tokens, {:.1f} tokens/s; prompts {} tokens, {:.1f} tokens/s, and {} from before\n", turns_,
       generated_, rate(generated_, total_.generate_seconds), total_.prompt_tokens,
       rate(total_.prompt_tokens, total_.prompt_seconds), total_.reused_tokens);
}

void Conversation::command(const std::string& line) {
  const size_t end = std::min(line.find_first_of(" \t\n"), line.size());
  const std::string name = line.substr(0, end);
  const size_t argument = line.find_first_not_of(" \t\n", end);
  for (const ChatCommand& command : kChatCommands)
    if (name == command.name) return (this->*command.run)(argument == std::string::npos ? "" : line.substr(argument));
  throw Error(
      ErrorCode::kInvalidArgument,
      fmt::format("there is no command {}: /help has the list; a message that begins with / goes between \"\"\"",
                  name));
}

void Conversation::answer(const std::function<ChatResult(const Chat::Emit&)>& ask) {
  bool written = false;
  last_ = [&] {
    try {
      return ask([&](std::string_view text) {
        if (!json_) {
          std::fwrite(text.data(), 1, text.size(), stdout);
          std::fflush(stdout);
          written = true;
        }
        return !interrupted.load();
      });
    } catch (const Error&) {
      if (written) fmt::print("\n");
      throw;
    }
  }();
  ++turns_;
  generated_ += last_.tokens.size();
  total_.prompt_tokens += last_.prompt_tokens;
  total_.reused_tokens += last_.reused_tokens;
  total_.prompt_seconds += last_.prompt_seconds;
  total_.generate_seconds += last_.generate_seconds;
  report(last_);
}

void Conversation::report(const ChatResult& result) {
  if (json_) {
    const nlohmann::ordered_json line = {{"text", result.text},
                                         {"tokens", result.tokens},
                                         {"finish_reason", name_of(result.finish)},
                                         {"prompt_tokens", result.prompt_tokens},
                                         {"reused_tokens", result.reused_tokens},
                                         {"prompt_seconds", result.prompt_seconds},
                                         {"generate_seconds", result.generate_seconds}};
    fmt::print("{}\n", line.dump());
  } else {
    fmt::print("\n");
  }
  if (std::fflush(stdout) != 0) throw Error(ErrorCode::kIo, "cannot write to stdout: is the disk full?");
  if (result.finish == FinishReason::kCancelled && on_terminal_) stopped("[stopped]");
  if (result.finish != FinishReason::kLength || json_) return;
  if (result.tokens.size() >= options_.max_tokens)
    note("[stopped after {} tokens: /params max_tokens=N allows more]\n", result.tokens.size());
  else
    note("[the context of {} tokens is full: /clear begins anew, --context N makes it larger]\n", chat_.context());
}

void Conversation::stopped(std::string_view what) {
  interrupted = false;  // before it is said: who then presses Ctrl-C means the prompt
  note("{}\n", what);
}

void Conversation::take(const Turn& turn) {
  try {
    if (turn.kind == Turn::Kind::kCommand) return command(turn.text);
    answer([&](const Chat::Emit& emit) { return chat_.say(turn.text, options_, emit); });
  } catch (const Error& error) {
    if (!on_terminal_ || terminated) throw;
    if (error.code() == ErrorCode::kCancelled)
      return stopped("[stopped before the answer began; the message is dropped]");
    note("{}\n", error.what());
  }
}

void Conversation::run(const std::string& first) {
  std::unique_ptr<LineSource> source;
  if (on_terminal_) {
    survive_interrupts();
    std::vector<std::string> names;
    for (const ChatCommand& command : kChatCommands) names.emplace_back(command.name);
    source = terminal_source(names, history_path());
    note("{}, {}, a context of {} tokens. /help has the commands.\n", engine_->info().architecture,
         engine_->info().device, chat_.context());
  } else {
    source = stream_source();
  }
  if (!first.empty()) take({.text = first});
  for (int interrupts = 0; running_;) {
    if (terminated || (interrupted && !on_terminal_)) throw Error(ErrorCode::kCancelled, "interrupted");
    Turn turn;
    try {
      turn = read_turn(*source);
    } catch (const Error& error) {
      if (!on_terminal_ || error.code() != ErrorCode::kInvalidArgument) throw;
      note("{}\n", error.what());
      continue;
    }
    if (turn.kind == Turn::Kind::kEnd) break;
    interrupts = turn.kind == Turn::Kind::kInterrupted && turn.was_empty ? interrupts + 1 : 0;
    if (interrupts >= 2) note("(/quit or Ctrl-D ends the program)\n");
    if (turn.kind == Turn::Kind::kCommand || (turn.kind == Turn::Kind::kMessage && !turn.text.empty())) take(turn);
  }
}

// A row of the library's list, or a file of the user's.
std::string read_template(const std::string& name) {
  std::string names;
  for (const BuiltinTemplate& row : builtin_chat_templates()) {
    if (row.name == name) return std::string(row.text);
    names += (names.empty() ? "" : ", ") + std::string(row.name);
  }
  std::ifstream file(name, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file || text.empty())
    throw Error(
        ErrorCode::kNotFound,
        fmt::format("--template {}: is no file with a template, and none of the built-in ones: {}", name, names));
  return text;
}

void chat(const Options& o, const CLI::App& command) {
  ModelArguments model = o.model;
  if (!o.chat_template.empty()) model.engine.chat_template = read_template(o.chat_template);
  const auto engine = open_engine(model);
  Conversation(engine, o, generate_options(*engine, o.sampling, command)).run(o.prompt);
}

}  // namespace

void add_chat(CLI::App& command) {
  auto o = std::make_shared<Options>();
  add_model_argument(command, o->model);
  command.add_option("-p,--prompt", o->prompt, "The first message");
  command.add_option("--system", o->system, "The system message");
  std::string names;
  for (const BuiltinTemplate& row : builtin_chat_templates())
    names += fmt::format("{}{}", names.empty() ? "" : ", ", row.name);
  command.add_option("--template", o->chat_template,
                     fmt::format("A Jinja file in place of the model's chat template, or one of: {}", names));
  add_sampling_options(command, o->sampling, 1024);
  add_session_options(command, o->model);
  command.add_flag("--json", o->json, "Print each answer and its statistics as one line of JSON");
  command.footer(
      "On a terminal: editing, history, /help for commands; Ctrl-C stops an answer, Ctrl-D ends.\n"
      "In a pipe every line is a message.\n"
      "Examples:\n"
      "  upg chat demo.upg\n"
      "  upg chat demo.upg --system \"You are brief.\" -p \"What is a prime number?\"\n"
      "  printf 'Hello\\nTell me more\\n' | upg chat demo.upg --template chatml --json");
  command.callback([o, &command] { chat(*o, command); });
}

}  // namespace upg::cli
