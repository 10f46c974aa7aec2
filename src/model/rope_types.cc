#include "model/rope_types.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>
#include <vector>

namespace upg {
namespace {

constexpr uint64_t kMostPositions = uint64_t{1} << 32;

uint64_t original_context(const ConfigReader& config, const ConfigReader& scaling, const RotaryShape& shape) {
  const char* key = "original_max_position_embeddings";
  return scaling.integer(key, 1, kMostPositions, config.integer(key, 1, kMostPositions, shape.max_context));
}

Rotary make_default(const ConfigReader&, const ConfigReader&, const RotaryShape& s) {
  return {Rope(plain_frequencies(s.dim, s.base), 1, s.interleaved)};
}

// Position interpolation (Chen et al. 2023).
Rotary make_linear(const ConfigReader&, const ConfigReader& scaling, const RotaryShape& s) {
  std::vector<float> frequency = plain_frequencies(s.dim, s.base);
  const auto factor = static_cast<float>(scaling.number("factor", 1e-3, 1e6));
  for (float& f : frequency) f /= factor;
  Rotary rotary{Rope(std::move(frequency), 1, s.interleaved)};
  rotary.scaling.factor = double{factor};
  return rotary;
}

// Llama 3.1: slow pairs are slowed by the factor, fast ones stay, those between are blended.
Rotary make_llama3(const ConfigReader& config, const ConfigReader& scaling, const RotaryShape& s) {
  const double factor = scaling.number("factor", 1, 1e6);
  const double low = scaling.number("low_freq_factor", 1e-3, 1e6), high = scaling.number("high_freq_factor", 1e-3, 1e6);
  if (high <= low) scaling.unsupported("high_freq_factor", "must be above low_freq_factor");
  const uint64_t context = original_context(config, scaling, s);
  const auto original = static_cast<double>(context);
  std::vector<float> frequency = plain_frequencies(s.dim, s.base);
  for (float& f : frequency) {
    const double turns = original * double{f} / (2 * std::numbers::pi);
    const double share = std::clamp((turns - low) / (high - low), 0.0, 1.0);  // of the frequency as it was
    f = static_cast<float>((1 - share) * double{f} / factor + share * double{f});
  }
  Rotary rotary{Rope(std::move(frequency), 1, s.interleaved)};
  rotary.scaling.factor = factor;
  rotary.scaling.original_context = context;
  return rotary;
}

// How much YaRN scales scores for a context stretched by `factor`.
double yarn_magnitude(double factor, double weight) { return factor <= 1 ? 1 : 0.1 * weight * std::log(factor) + 1; }

// YaRN (Peng et al. 2023): pairs that turn less than beta_slow times in the original context are slowed by the factor,
// those of more than beta_fast turns stay.
Rotary make_yarn(const ConfigReader& config, const ConfigReader& scaling, const RotaryShape& s) {
  const uint64_t context = original_context(config, scaling, s);
  const auto original = static_cast<double>(context);
  const double factor = scaling.number("factor", 1, 1e6);
  const double fast = scaling.number("beta_fast", 1e-3, 1e6, 32.0), slow = scaling.number("beta_slow", 1e-3, 1e6, 1.0);
  const double dim = static_cast<double>(s.dim);
  // The pair that makes so many turns, as a fraction.
  const auto pair_of = [&](double turns) {
    return dim * std::log(original / (turns * 2 * std::numbers::pi)) / (2 * std::log(s.base));
  };
  double first = pair_of(fast), last = pair_of(slow);
  const bool truncate = scaling.boolean("truncate", true);
  if (truncate) {
    first = std::floor(first);
    last = std::ceil(last);
  }
  first = std::max(first, 0.0);
  last = std::min(last, dim - 1);
  if (first == last) last += 0.001;
  std::vector<float> frequency = plain_frequencies(s.dim, s.base);
  for (size_t i = 0; i < frequency.size(); ++i) {
    const double slowed = std::clamp((static_cast<double>(i) - first) / (last - first), 0.0, 1.0);
    const double f = double{frequency[i]};
    frequency[i] = static_cast<float>(f / factor * slowed + f * (1 - slowed));
  }
  const double all = scaling.number("mscale_all_dim", 0, 1e3, 0.0), part = scaling.number("mscale", 0, 1e3, 0.0);
  const double otherwise =
      all != 0 && part != 0 ? yarn_magnitude(factor, part) / yarn_magnitude(factor, all) : yarn_magnitude(factor, 1);
  const double magnitude = scaling.number("attention_factor", 0, 1e6, otherwise);
  Rotary rotary{Rope(std::move(frequency), static_cast<float>(magnitude), s.interleaved)};
  rotary.scaling = {.factor = factor, .original_context = context, .fast = fast, .slow = slow, .truncate = truncate};
  return rotary;
}

// LongRoPE (Ding et al. 2024): a factor a pair, one set for the original context and one for longer ones.
Rotary make_longrope(const ConfigReader& config, const ConfigReader& scaling, const RotaryShape& s) {
  const uint64_t original = original_context(config, scaling, s);
  const double stretch = config.number("original_max_position_embeddings", 1, 1e12, 0.0) != 0 || !scaling.has("factor")
                             ? static_cast<double>(s.max_context) / static_cast<double>(original)
                             : scaling.number("factor", 1e-3, 1e6);
  const double otherwise =
      stretch <= 1 ? 1 : std::sqrt(1 + std::log(stretch) / std::log(static_cast<double>(original)));
  const auto magnitude = static_cast<float>(scaling.number("attention_factor", 0, 1e6, otherwise));
  const auto rope = [&](const char* key) {
    const std::vector<double> factors = scaling.numbers(key, 1e-6, 1e6);
    if (factors.size() != s.dim / 2)
      scaling.unsupported(key, fmt::format("must have {} numbers, one for each pair of a head", s.dim / 2));
    std::vector<float> frequency = plain_frequencies(s.dim, s.base);
    for (size_t i = 0; i < frequency.size(); ++i) frequency[i] /= static_cast<float>(factors[i]);
    return Rope(std::move(frequency), magnitude, s.interleaved);
  };
  Rotary rotary{rope("short_factor"), rope("long_factor"), original};
  rotary.scaling.original_context = original;
  return rotary;
}

struct RopeType {
  std::string_view name;
  Rotary (*make)(const ConfigReader& config, const ConfigReader& scaling, const RotaryShape& shape);
};
constexpr RopeType kRopeTypes[] = {
    {"default", make_default}, {"linear", make_linear},     {"llama3", make_llama3},
    {"yarn", make_yarn},       {"longrope", make_longrope}, {"su", make_longrope},  // its first name
};

Rotary named(Rotary rotary, std::string_view type, const RotaryShape& shape) {
  rotary.scaling.type = type;
  rotary.scaling.base = shape.base;
  return rotary;
}

}  // namespace

Rotary make_rotary(const ConfigReader& config, const std::optional<ConfigReader>& scaling, const RotaryShape& shape) {
  if (!scaling) return named(make_default(config, config, shape), kRopeTypes[0].name, shape);
  const char* key =
      scaling->has("type") && !scaling->has("rope_type") ? "type" : "rope_type";  // "type" in earlier files
  // transformers 5 has the base of plain frequencies in here too, and then no type is needed.
  if (!scaling->has(key) && !scaling->has("rope_theta")) scaling->unsupported(key, "it says how positions are scaled");
  const std::string name = scaling->string(key, "default");
  std::vector<std::string_view> known;
  for (const RopeType& type : kRopeTypes) {
    if (type.name == name) return named(type.make(config, *scaling, shape), type.name, shape);
    known.push_back(type.name);
  }
  scaling->unsupported(key, fmt::format("supported: {}", fmt::join(known, ", ")));
}

Rotary read_rotary(const ConfigReader& config, uint64_t dim, bool interleaved) {
  // transformers 5 gathers the rotary options in one object; earlier files have the base at the top.
  const auto gathered = config.object("rope_parameters");
  if (gathered && config.has("rope_scaling")) config.unsupported("rope_scaling", "rope_parameters is there too");
  const ConfigReader& base = gathered ? *gathered : config;
  const uint64_t context = config.integer("max_position_embeddings", 1, kMostPositions);
  return make_rotary(config, gathered ? gathered : config.object("rope_scaling"),
                     {dim, base.number("rope_theta", 1, 1e12, 10000.0), context, interleaved});
}

}  // namespace upg
