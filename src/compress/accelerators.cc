#include "compress/accelerators.h"

#include <fmt/ranges.h>

#include "base/error.h"
#include "cuda/cuda_accelerator.h"

namespace upg {
namespace {

struct Row {
  std::string_view name;
  std::unique_ptr<Accelerator> (*open)(ThreadPool& pool);
};

constexpr Row kRows[] = {
    {"cpu", [](ThreadPool&) -> std::unique_ptr<Accelerator> { return nullptr; }},
    {"cuda", cuda::open_accelerator},
};

}  // namespace

std::vector<std::string_view> compress_device_names() {
  std::vector<std::string_view> names;
  for (const Row& row : kRows) names.push_back(row.name);
  return names;
}

std::unique_ptr<Accelerator> open_accelerator(std::string_view name, ThreadPool& pool) {
  for (const Row& row : kRows)
    if (row.name == name) return row.open(pool);
  fail(ErrorCode::kInvalidArgument, "no device \"{}\" to compress on; choose one of: {}", name,
       fmt::join(compress_device_names(), ", "));
}

}  // namespace upg
