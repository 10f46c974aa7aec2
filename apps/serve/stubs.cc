#include "routes.h"
namespace upg::serve {
#define STUB(f) void f(Service&, const HttpRequest&, HttpResponse&) { throw RequestError(501, "not yet"); }
STUB(completions) STUB(responses) STUB(messages) STUB(count_message_tokens) STUB(embeddings) STUB(tokenize_text) STUB(detokenize_tokens)
}
