// response_format: answers that must be JSON.
#pragma once

#include <memory>

#include "json_reader.h"
#include "upg/engine.h"
#include "upg/scheduler.h"

namespace upg::serve {

/// Of the field `name`; nullptr for plain text. Throws RequestError for what cannot be enforced: an answer that only
/// looks constrained would be worse than none.
std::shared_ptr<TokenConstraint> read_constraint(const Engine& engine, const Fields& fields, const char* name);

}  // namespace upg::serve
