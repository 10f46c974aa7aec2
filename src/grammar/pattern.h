// Regular expressions for strings in JSON, rewritten so that xgrammar matches them exactly.
#pragma once

#include <string>
#include <vector>

namespace upg::grammar {

/// The same language in other words: xgrammar's automata take too much for "?" and "{n,}" behind what can be left in
/// the middle, such as (a[0-9]*)?. Throws Error(kInvalidArgument) where that makes the pattern too long.
std::string exact_pattern(const std::string& pattern);

/// Matches every text of printable ASCII without quotes and backslashes that is none of `names`: the names of
/// properties that an object may have besides those that are given.
std::string pattern_of_other_keys(const std::vector<std::string>& names);

}  // namespace upg::grammar
