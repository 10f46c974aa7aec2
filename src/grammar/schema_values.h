// What can be said about values and normalised schemas: types, numbers that are held exactly, schemas that exclude each
// other, references that never come to an end.
#pragma once

#include <cstdint>
#include <optional>

#include "grammar/schema.h"

namespace upg::grammar {

/// Whether `value`, with all in it, comes out of xgrammar's JSON reader as it went in.
bool is_exact(const Schema& value);
/// A bit of schema_keywords.h; two for an integer, which is a number too.
uint8_t types_of(const Schema& value);
/// Of an integer, or of a number without a fraction.
std::optional<int64_t> whole_number(const Schema& value);

/// Whether no value can satisfy both, as far as types, constants, and required properties with constants tell.
bool exclude_each_other(const Schema& a, const Schema& b, const Schema& definitions);

/// Throws Error(kInvalidArgument) where a schema refers to itself with nothing between, and where no value that ends
/// can satisfy `main`.
void check_recursion(const Schema& main, const Schema& definitions);

}  // namespace upg::grammar
