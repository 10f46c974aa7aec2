#include "constraints.h"

#include <fmt/format.h>

#include "errors.h"

namespace upg::serve {

std::shared_ptr<TokenConstraint> read_constraint(const Engine& /*engine*/, const Fields& fields, const char* name) {
  const Json* format = fields.object(name);
  if (format == nullptr) return nullptr;
  const std::string type = Fields(*format, name).required_text("type");
  if (type == "text") return nullptr;
  refuse(name, fmt::format("{}.type \"{}\" is not supported: this server cannot force answers into a grammar yet", name,
                           type));
}

}  // namespace upg::serve
