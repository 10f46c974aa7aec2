// HellaSwag (Zellers et al. 2019) and LAMBADA (Paperno et al. 2016). Tasks are rows of a list.
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <sstream>
#include <vector>

#include "base/error.h"
#include "base/mapped_file.h"
#include "engine/engine_impl.h"
#include "engine/statistics.h"
#include "format/json.h"
#include "upg/evaluate.h"

namespace upg {
namespace {

struct Item {
  std::string context;
  std::vector<std::string> endings;  // candidates; with one, it is the text to be predicted
  size_t right = 0;
};

struct Continuation {
  double log_likelihood = 0;
  bool greedy = true;  // every token was the likeliest
  uint64_t tokens = 0;
};

// log p(ending | context). The boundary is where the tokens of context + ending leave those of the context.
Continuation score(Session& session, const Tokenizer& tokenizer, uint64_t vocab, const std::string& context,
                   const std::string& ending) {
  const std::vector<int32_t> before = tokenizer.encode(context, true, false);
  const std::vector<int32_t> all = tokenizer.encode(context + ending, true, false);
  uint64_t boundary = 0;
  while (boundary < before.size() && boundary < all.size() && before[boundary] == all[boundary]) ++boundary;
  boundary = std::max<uint64_t>(boundary, 1);  // the first token has nothing to be predicted from
  Continuation result;
  if (all.size() <= boundary) return result;
  for (int32_t token : all)  // the last one is predicted but never fed, so that nothing else checks it
    if (static_cast<uint64_t>(token) >= vocab)
      fail(ErrorCode::kInvalidFile, "the tokenizer gives token id {}, outside the vocabulary of {}", token, vocab);
  session.rewind(0);
  session.feed_all(std::span(all).first(all.size() - 1), boundary - 1, [&](uint64_t t, std::span<const float> logits) {
    const auto answer = static_cast<size_t>(all[t + 1]);
    const float top = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (float x : logits) sum += std::exp(static_cast<double>(x) - top);
    result.log_likelihood += static_cast<double>(logits[answer]) - top - std::log(sum);
    result.greedy &= logits[answer] == top;
    ++result.tokens;
  });
  return result;
}

std::vector<Item> read_hellaswag(const std::string& path) {
  std::istringstream lines(read_file(path));
  std::vector<Item> items;
  std::string line;
  while (std::getline(lines, line)) {
    Item item{line, {}, 0};
    std::string number;
    if (!std::getline(lines, number) || number.size() != 1 || number[0] < '0' || number[0] > '3')
      fail(ErrorCode::kInvalidFile, "{}: line {} must be the number of the right ending, 0 to 3; it is \"{}\"", path,
           items.size() * 6 + 2, number);
    item.right = static_cast<size_t>(number[0] - '0');
    for (int i = 0; i < 4; ++i) {
      if (!std::getline(lines, line))
        fail(ErrorCode::kInvalidFile, "{}: the last record has fewer than six lines", path);
      item.endings.push_back(" " + line);
    }
    items.push_back(std::move(item));
  }
  return items;
}

std::vector<Item> read_lambada(const std::string& path) {
  std::istringstream lines(read_file(path));
  std::vector<Item> items;
  std::string line;
  while (std::getline(lines, line)) {
    if (line.empty()) continue;
    const std::string where = fmt::format("{}: line {}", path, items.size() + 1);
    const nlohmann::json json = parse_json_object(line, where);
    if (!json.contains("text") || !json["text"].is_string())
      fail(ErrorCode::kInvalidFile, "{}: has no string \"text\"", where);
    const std::string text = json["text"].get<std::string>();
    const size_t space = text.find_last_of(' ');
    if (space == std::string::npos || space == 0 || space + 1 == text.size())
      fail(ErrorCode::kInvalidFile, "{}: \"text\" must end in a space and the word to predict", where);
    items.push_back({text.substr(0, space), {text.substr(space)}, 0});
  }
  return items;
}

struct Task {
  std::string_view name;
  std::vector<Item> (*read)(const std::string& path);
};

constexpr Task kTasks[] = {{"hellaswag", read_hellaswag}, {"lambada", read_lambada}};

const Task& find_task(const std::string& name) {
  std::vector<std::string_view> known;
  for (const Task& task : kTasks) {
    if (task.name == name) return task;
    known.push_back(task.name);
  }
  fail(ErrorCode::kInvalidArgument, "task \"{}\" is not known; choose one of: {}", name, fmt::join(known, ", "));
}

}  // namespace

TaskEvaluation evaluate_task(const std::string& model, const std::string& task, const std::string& data_file,
                             uint64_t items, const EvaluateOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<Item> records = find_task(task).read(data_file);
  if (records.empty()) fail(ErrorCode::kInvalidFile, "{}: holds no records", data_file);
  if (items > 0 && items < records.size()) records.resize(items);
  const auto engine =
      Engine::open(model, {options.threads, options.progress, options.device, options.fusion, options.gpu_layers});
  const Tokenizer& tokenizer = engine->impl().require_tokenizer();
  Session session(engine, {0, options.kv, options.float_activations});

  Mean right, right_normalized, nll;
  for (size_t i = 0; i < records.size(); ++i) {
    if (options.progress && !options.progress(task, i, records.size()))
      fail(ErrorCode::kCancelled, "evaluation was cancelled");
    const Item& item = records[i];
    std::vector<Continuation> scores;
    for (const std::string& ending : item.endings)
      scores.push_back(score(session, tokenizer, engine->info().vocab_size, item.context, ending));
    if (item.endings.size() == 1) {
      right.add(scores[0].greedy ? 1 : 0);
      for (uint64_t t = 0; t < scores[0].tokens; ++t)
        nll.add(-scores[0].log_likelihood / static_cast<double>(scores[0].tokens));
      continue;
    }
    auto best_by = [&](auto value) {
      size_t best = 0;
      for (size_t e = 1; e < scores.size(); ++e)
        if (value(e) > value(best)) best = e;
      return best;
    };
    right.add(best_by([&](size_t e) { return scores[e].log_likelihood; }) == item.right ? 1 : 0);
    right_normalized.add(best_by([&](size_t e) {
                           return scores[e].log_likelihood / static_cast<double>(item.endings[e].size());
                         }) == item.right
                             ? 1
                             : 0);
  }
  if (options.progress) options.progress(task, records.size(), records.size());
  TaskEvaluation result{task, records.size(), right.estimate(), {}, {}, 0};
  if (right_normalized.count() > 0) result.normalized_accuracy = right_normalized.estimate();
  if (nll.count() > 0) result.perplexity = nll.exp();
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace upg
