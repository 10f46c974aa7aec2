#include "model/arch_table.h"

#include <fmt/ranges.h>

#include "base/error.h"
#include "model/arch/phi3.h"

namespace upg {
namespace {

constexpr Architecture kArchitectures[] = {
    {"Phi3ForCausalLM", load_phi3},
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
    std::unique_ptr<Model> model = architecture.load(config, weights);
    weights.check_all_used();
    return model;
  }
  fail(ErrorCode::kUnsupported, "{}: architecture \"{}\" is not supported; supported: {}", weights.path(), name,
       fmt::join(known, ", "));
}

}  // namespace upg
