#include "model/arch_table.h"

#include <fmt/ranges.h>

#include "base/error.h"

namespace upg {

#define UPG_ARCHITECTURE(name, load) Decoder load(const ConfigReader& config, Weights& weights);
#include "model/architectures.inc"
#undef UPG_ARCHITECTURE

namespace {

constexpr Architecture kArchitectures[] = {
#define UPG_ARCHITECTURE(name, load) {name, load},
#include "model/architectures.inc"
#undef UPG_ARCHITECTURE
};

}  // namespace

std::span<const Architecture> architectures() { return kArchitectures; }

std::unique_ptr<Model> load_model(Weights& weights) {
  const ConfigReader config(weights.texts().config, weights.path() + ": config.json");
  const std::string name = config.architecture();
  std::vector<std::string_view> known;
  for (const Architecture& architecture : kArchitectures) {
    known.push_back(architecture.name);
    if (architecture.name != name) continue;
    auto model = std::make_unique<Model>(architecture.load(config, weights));
    weights.check_all_used();
    return model;
  }
  fail(ErrorCode::kUnsupported, "{}: architecture \"{}\" is not supported; supported: {}", weights.path(), name,
       fmt::join(known, ", "));
}

}  // namespace upg
