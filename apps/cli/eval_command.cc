// eval: perplexity on text, divergence from a reference, accuracy on tasks.
#include <fmt/format.h>

#include <memory>

#include "command.h"
#include "hub_options.h"
#include "upg/evaluate.h"

namespace upg::cli {
namespace {

struct Options {
  std::string model, text, task, data;
  uint64_t items = 0;
  bool json = false;
  HubOptions hub;
  EvaluateOptions evaluate;
};

void put(nlohmann::ordered_json& json, const std::string& name, const Estimate& e) {
  json[name] = e.value;
  json[name + "_se"] = e.standard_error;
}

void print(const char* name, const Estimate& e, double scale = 1, const char* unit = "") {
  fmt::print("{:<22}{:.5g}{} +- {:.2g}\n", name, e.value * scale, unit, e.standard_error * scale);
}

void evaluate_text(const Options& o) {
  ProgressBar bar;
  EvaluateOptions options = o.evaluate;
  options.progress = bar.callback();
  if (!options.reference.empty()) options.reference = model_path(options.reference, o.hub);
  const TextEvaluation e = upg::evaluate_text(model_path(o.model, o.hub), o.text, options);
  bar.clear();
  const bool compared = !options.reference.empty();
  if (o.json) {
    nlohmann::ordered_json json = {{"model", o.model},           {"text", o.text},     {"tokens", e.tokens},
                                   {"context", options.context}, {"chunks", e.chunks}, {"scored", e.scored}};
    put(json, "perplexity", e.perplexity);
    if (compared) {
      json["reference"] = o.evaluate.reference;
      put(json, "reference_perplexity", e.reference_perplexity);
      put(json, "perplexity_ratio", e.perplexity_ratio);
      put(json, "mean_kld", e.mean_kld);
      json["p99_kld"] = e.p99_kld;
      json["max_kld"] = e.max_kld;
      put(json, "same_top1", e.same_top1);
    }
    json["seconds"] = e.seconds;
    return print_json(json);
  }
  fmt::print("{:<22}{} of {} tokens, {} predictions scored\n", "chunks", e.chunks, options.context, e.scored);
  print("perplexity", e.perplexity);
  if (compared) {
    print("reference perplexity", e.reference_perplexity);
    print("perplexity ratio", e.perplexity_ratio);
    print("mean KL divergence", e.mean_kld);
    fmt::print("{:<22}{:.5g}\n", "99% KL divergence", e.p99_kld);
    print("same top-1", e.same_top1, 100, "%");
  }
  fmt::print("{:<22}{:.1f} s\n", "time", e.seconds);
}

void evaluate_task(const Options& o) {
  ProgressBar bar;
  EvaluateOptions options = o.evaluate;
  options.progress = bar.callback();
  const TaskEvaluation e = upg::evaluate_task(model_path(o.model, o.hub), o.task, o.data, o.items, options);
  bar.clear();
  if (o.json) {
    nlohmann::ordered_json json = {{"model", o.model}, {"task", e.task}, {"items", e.items}};
    put(json, "accuracy", e.accuracy);
    if (e.normalized_accuracy) put(json, "normalized_accuracy", *e.normalized_accuracy);
    if (e.perplexity) put(json, "perplexity", *e.perplexity);
    json["seconds"] = e.seconds;
    return print_json(json);
  }
  fmt::print("{:<22}{}, {} items\n", "task", e.task, e.items);
  print("accuracy", e.accuracy, 100, "%");
  if (e.normalized_accuracy) print("normalized accuracy", *e.normalized_accuracy, 100, "%");
  if (e.perplexity) print("perplexity", *e.perplexity);
  fmt::print("{:<22}{:.1f} s\n", "time", e.seconds);
}

}  // namespace

void add_eval(CLI::App& command) {
  auto o = std::make_shared<Options>();
  command.add_option("MODEL", o->model, kModelHelp)->required();
  auto* text = command.add_option("--text", o->text, "Text file to measure perplexity on");
  auto* reference =
      command
          .add_option("--reference", o->evaluate.reference,
                      "Compare with this model, run with an f16 cache and float activations, prediction by prediction")
          ->needs(text);
  command.add_option("--context", o->evaluate.context, "Tokens a chunk [512]")->needs(text);
  command.add_option("--chunks", o->evaluate.chunks, "Chunks; 0: the whole text [0]")->needs(text);
  auto* task = command.add_option("--task", o->task, "hellaswag or lambada")->excludes(text)->excludes(reference);
  command.add_option("--data", o->data, "The task's data file")->needs(task);
  command.add_option("--items", o->items, "Records of the task; 0: all [0]")->needs(task);
  command.add_option("--kv", o->evaluate.kv, "Cache of keys and values: f16, int8 or f32 [f16]");
  command.add_flag("--float-activations", o->evaluate.float_activations,
                   "Exact products with compressed weights, slower: shows what int8 activations cost");
  command.add_option("--threads", o->evaluate.threads, "Threads; 0: one for each core [0]");
  add_device_options(command, o->evaluate.device, o->evaluate.fusion, o->evaluate.gpu_layers);
  add_hub_options(command, o->hub);
  command.add_flag("--json", o->json, "Print as JSON");
  command.footer(
      "Examples:\n"
      "  upg eval demo.upg --text wiki.test.raw --reference models/demo --chunks 100\n"
      "  upg eval demo.upg --task lambada --data lambada_test.jsonl");
  command.callback([o] {
    if (o->text.empty() && o->task.empty()) throw CLI::RequiredError("--text or --task");
    if (!o->task.empty() && o->data.empty()) throw CLI::RequiredError("--data");
    if (o->text.empty()) {
      evaluate_task(*o);
    } else {
      evaluate_text(*o);
    }
  });
}

}  // namespace upg::cli
