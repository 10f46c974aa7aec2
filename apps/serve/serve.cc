#include "serve.h"

#include <fmt/format.h>

#include <cstdio>
#include <thread>

#include "access.h"
#include "http_server.h"
#include "limits.h"
#include "routes.h"
#include "service.h"

namespace upg::serve {
namespace {

void say(const std::string& line) {
  std::fwrite(line.data(), 1, line.size(), stderr);
  std::fflush(stderr);
}

std::string shown_host(const std::string& host) {
  return host.find(':') == std::string::npos ? host : "[" + host + "]";
}

}  // namespace

void serve(const ServeOptions& options, const std::atomic<bool>& stop) {
  const std::vector<std::string> keys =
      options.api_key_file.empty() ? std::vector<std::string>() : read_keys(options.api_key_file);
  const bool open_to_all = keys.empty() && !is_loopback(options.host);
  const Access access(options.host, keys, options.cors);
  Service service;
  service.log_prompts = options.log_prompts;
  const ModelOptions model{options.engine, options.scheduler, options.idle_unload};
  service.models = options.models.empty() ? Models::single(options.model, options.alias, model)
                                          : Models::folder(options.models, model);
  HttpServer server(options.host, options.port, options.connections,
                    {[&](const HttpRequest& request) { return check_request(service, access, request); },
                     [&](const HttpRequest& request) { return handle_request(service, access, request); },
                     [&](const HttpRequest& request, int status, const std::string& message) {
                       return failed_request(access, request, RequestError(status, message));
                     }});
  server.start();
  std::string names;
  for (const ModelSource& source : service.models->list()) names += (names.empty() ? "" : ", ") + source.name;
  say(fmt::format("serving {} at http://{}:{}\n", names, shown_host(options.host), server.port()));
  if (open_to_all)
    say("warning: everybody who reaches this address may use the server: --api-key-file asks for a key\n");
  while (!stop) std::this_thread::sleep_for(std::chrono::milliseconds(50));

  service.draining = true;
  say(fmt::format("stopping: what has begun gets up to {} s\n", kDrainTime.count()));
  const auto end = std::chrono::steady_clock::now() + kDrainTime;
  const bool all = service.models->drain(kDrainTime);
  // The scheduler is done before the last bytes are written.
  while (service.metrics.active() > 0 && std::chrono::steady_clock::now() < (all ? end : end + std::chrono::seconds(1)))
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  server.stop();
  say(all ? "stopped\n" : "stopped; some answers were cut off\n");
}

}  // namespace upg::serve
