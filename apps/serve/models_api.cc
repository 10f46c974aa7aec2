// GET /v1/models and /v1/models/{id}.
#include <fmt/format.h>

#include "routes.h"

namespace upg::serve {
namespace {

Json model_json(const ModelSource& source) {
  return {{"id", source.name}, {"object", "model"}, {"created", source.created}, {"owned_by", "upg"}};
}

}  // namespace

void list_models(Service& service, const HttpRequest&, HttpResponse& response) {
  Json list = Json::array();
  for (const ModelSource& source : service.models->list()) list.push_back(model_json(source));
  response.body = to_text({{"object", "list"}, {"data", std::move(list)}});
}

void show_model(Service& service, const HttpRequest& request, HttpResponse& response) {
  for (const ModelSource& source : service.models->list()) {
    if (source.name != request.parameter) continue;
    response.body = to_text(model_json(source));
    return;
  }
  throw RequestError(404, fmt::format("there is no model \"{}\"", request.parameter.substr(0, 200)), "model",
                     "model_not_found");
}

}  // namespace upg::serve
