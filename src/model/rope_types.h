// How rotary frequencies follow from a configuration: THE list of rope types, by the name in "rope_type".
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "model/config.h"
#include "ops/rope.h"

namespace upg {

/// Where the frequencies come from, for those who have to say it in other words.
struct RotaryScaling {
  std::string_view type = "default";  // a row of the list
  double base = 0;                    // of the plain frequencies; 0: nothing turns
  double factor = 1;
  uint64_t original_context = 0;  // 0: the type has none
  // Of yarn.
  double fast = 32, slow = 1;
  bool truncate = true;
};

/// The rotation of a model's heads. Some models turn otherwise in long contexts; a session takes one or the other by
/// its capacity, so that a token's key does not depend on how it came in.
struct Rotary {
  Rope rope;
  Rope extended{};  // for sessions of more than `limit` positions
  uint64_t limit = UINT64_MAX;
  RotaryScaling scaling{};

  const Rope& of_capacity(uint64_t capacity) const { return capacity > limit ? extended : rope; }
};

/// What the formulas need from outside "rope_scaling".
struct RotaryShape {
  uint64_t dim = 0;          // elements of a head that turn, even
  double base = 0;           // "rope_theta"
  uint64_t max_context = 0;  // "max_position_embeddings"
  bool interleaved = false;
};

/// `scaling`: the object "rope_scaling" (or "rope_parameters"), or nothing for plain frequencies; `config` the whole
/// file, where some have "original_max_position_embeddings". Throws Error(kUnsupported) for a type that is not known.
Rotary make_rotary(const ConfigReader& config, const std::optional<ConfigReader>& scaling, const RotaryShape& shape);

/// From the fields of config.json that most families use: "rope_theta" and "rope_scaling", or all in
/// "rope_parameters". `dim` is the part of a head that turns.
Rotary read_rotary(const ConfigReader& config, uint64_t dim, bool interleaved = false);

}  // namespace upg
