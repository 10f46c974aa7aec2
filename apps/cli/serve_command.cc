// serve: the HTTP server. Everything it says goes to stderr.
#include <fmt/format.h>

#include <memory>

#include "command.h"
#include "sampling_options.h"
#include "serve/serve.h"

namespace upg::cli {

void add_serve(CLI::App& command) {
  struct Options {
    ModelArguments model;
    serve::ServeOptions serve;
    uint64_t idle_unload = 0;
    uint64_t queue_time = 600;
    uint64_t port = 8080;
  };
  auto o = std::make_shared<Options>();
  serve::ServeOptions& s = o->serve;
  CLI::Option* model = command.add_option("MODEL", o->model.model, kModelHelp);
  CLI::Option* models =
      command.add_option("--models", s.models, "A folder: every model in it by its name, loaded at first use");
  model->excludes(models);
  command.add_option("--idle-unload", o->idle_unload,
                     "--models: seconds without requests before a model goes; 0: never [0]");
  command.add_option("--alias", s.alias, "The model's name in responses [that of the file]")->excludes(models);
  command.add_option("--host", s.host, "Address to listen on [127.0.0.1]");
  command.add_option("--port", o->port, "0: any free one [8080]")->check(CLI::Range(0, 65535));
  command.add_option("--api-key-file", s.api_key_file, "A key a line; requests must bring one of them");
  command.add_option("--cors", s.cors, "An origin whose pages may use the server, or * for all");
  command.add_option("--parallel", s.scheduler.parallel, "Requests that run together [4]")->check(CLI::Range(1, 1024));
  command.add_option("--queue", s.scheduler.queue, "Requests that may wait besides; more get status 429 [64]");
  command.add_option("--queue-time", o->queue_time, "Seconds that one may wait at most; then it gets status 429 [600]")
      ->check(CLI::Range(0, 1000000));
  command.add_option("--connections", s.connections, "Connections at once [256]")->check(CLI::Range(4, 65536));
  command.add_flag("--log-prompts", s.log_prompts, "Log the bodies of requests, not only a line for each");
  add_session_options(command, o->model);
  command.footer(
      "Clients of OpenAI's API use http://HOST:PORT/v1 as their base address, those of Anthropic's http://HOST:PORT.\n"
      "Examples:\n"
      "  upg serve phi-4.upg\n"
      "  upg serve phi-4.upg --parallel 8 --context 8192 --api-key-file keys --host 0.0.0.0\n"
      "  upg serve --models models --idle-unload 600\n"
      "  curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\\n"
      "    -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'");
  command.callback([o] {
    serve::ServeOptions& serve = o->serve;
    if (o->model.model.empty() && serve.models.empty()) throw CLI::RequiredError("MODEL or --models");
    if (!o->model.model.empty()) serve.model = model_path(o->model.model, o->model.hub);
    // A name's path ends in a commit.
    if (serve.alias.empty() && serve.model != o->model.model) serve.alias = o->model.model;
    serve.port = static_cast<int>(o->port);
    serve.idle_unload = std::chrono::seconds(o->idle_unload);
    serve.scheduler.queue_time = std::chrono::seconds(o->queue_time);
    serve.scheduler.session = o->model.session;
    serve.engine = o->model.engine;
    ProgressBar bar;
    serve.engine.progress = bar.callback();
    serve::serve(serve, interrupted);
  });
}

}  // namespace upg::cli
