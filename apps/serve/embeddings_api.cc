// POST /v1/embeddings: the mean of the last hidden states, with length one as OpenAI's have it.
#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "generation_fields.h"
#include "limits.h"
#include "prompts.h"
#include "routes.h"

namespace upg::serve {
namespace {

void normalize(std::vector<float>& vector) {
  double sum = 0;
  for (float x : vector) sum += static_cast<double>(x) * x;
  if (sum <= 0) return;
  const double scale = 1 / std::sqrt(sum);
  for (float& x : vector) x = static_cast<float>(x * scale);
}

// Little-endian float32 values.
std::string base64(const std::vector<float>& vector) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::vector<unsigned char> bytes;
  for (float x : vector) {
    const auto bits = std::bit_cast<uint32_t>(x);
    for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<unsigned char>(bits >> shift));
  }
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t word = 0;
    const size_t n = std::min<size_t>(3, bytes.size() - i);
    for (size_t k = 0; k < 3; ++k) word = word << 8 | (k < n ? bytes[i + k] : 0u);
    for (size_t k = 0; k < 4; ++k) text += k <= n ? kDigits[word >> (18 - 6 * k) & 63] : '=';
  }
  return text;
}

}  // namespace

void embeddings(Service& service, const HttpRequest& request, HttpResponse& response) {
  const Json body = parse_object(request.body);
  const Fields fields(body);
  const std::shared_ptr<ServedModel> model = read_model(service, fields);
  const std::string format = fields.text("encoding_format").value_or("float");
  if (format != "float" && format != "base64")
    refuse("encoding_format", fmt::format("encoding_format is \"{}\", must be float or base64", format));
  const auto dimensions = fields.integer("dimensions", 1, INT32_MAX);
  const auto inputs = read_prompts(*model, fields, "input");
  Json list = Json::array();
  uint64_t tokens = 0;
  for (const std::vector<int32_t>& input : inputs) {
    if (request.gone()) throw RequestError(499, "the client has left");
    std::vector<float> vector = model->scheduler->embed(input);
    if (dimensions && static_cast<size_t>(*dimensions) != vector.size())
      refuse("dimensions",
             fmt::format("dimensions is {}, this model's embeddings have {}", *dimensions, vector.size()));
    normalize(vector);
    tokens += input.size();
    Json entry = {{"object", "embedding"}, {"index", list.size()}};
    entry["embedding"] = format == "base64" ? Json(base64(vector)) : Json(vector);
    list.push_back(std::move(entry));
  }
  *response.note = fmt::format("model={} prompt={}", model->name, tokens);
  response.body = to_text({{"object", "list"},
                           {"data", std::move(list)},
                           {"model", model->name},
                           {"usage", {{"prompt_tokens", tokens}, {"total_tokens", tokens}}}});
}

}  // namespace upg::serve
