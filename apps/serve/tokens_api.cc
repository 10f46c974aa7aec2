// POST /tokenize and /detokenize.
#include <fmt/format.h>

#include "chat_prompt.h"
#include "generation_fields.h"
#include "limits.h"
#include "prompts.h"
#include "routes.h"

namespace upg::serve {

void tokenize_text(Service& service, const HttpRequest& request, HttpResponse& response) {
  const Json body = parse_object(request.body);
  const Fields fields(body);
  const std::shared_ptr<ServedModel> model = read_model(service, fields);
  std::vector<int32_t> tokens;
  if (const Json* list = fields.array("messages", kMaxMessages)) {
    ChatRequest chat;
    chat.messages = normal_messages(*list, "messages");
    read_tools(fields, chat);
    tokens = make_prompt(*model, chat, "messages").tokens;
  } else {
    std::optional<std::string> text = fields.text("content");
    if (!text) text = fields.text("prompt");
    if (!text) refuse("content", "content is missing: it must be a string, or messages an array");
    tokens = model->engine->tokenize(*text, fields.flag("parse_special").value_or(true),
                                     fields.flag("add_special").value_or(true));
  }
  response.body =
      to_text({{"tokens", tokens}, {"count", tokens.size()}, {"max_model_len", model->scheduler->context()}});
}

void detokenize_tokens(Service& service, const HttpRequest& request, HttpResponse& response) {
  const Json body = parse_object(request.body);
  const Fields fields(body);
  const std::shared_ptr<ServedModel> model = read_model(service, fields);
  const Json* list = fields.array("tokens", kMaxBodyBytes);
  if (list == nullptr) refuse("tokens", "tokens is missing: it must be an array of token ids");
  const std::string text = model->engine->detokenize(read_tokens(*list, model->engine->info().vocab_size, "tokens"));
  response.body = to_text({{"content", text}, {"prompt", text}});
}

}  // namespace upg::serve
