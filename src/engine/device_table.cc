#include "engine/device_table.h"

#include <fmt/ranges.h>

#include "base/error.h"
#include "cuda/cuda_device.h"
#include "engine/cpu_device.h"

namespace upg {
namespace {

std::unique_ptr<Device> open_cuda(Model& model, OpContext& context, const EngineOptions& options) {
  return cuda::open_device(model, context, options.fusion, options.progress);
}

std::unique_ptr<Device> open_cpu(Model& model, OpContext& context, const EngineOptions& options) {
  if (!options.fusion.empty()) fail(ErrorCode::kInvalidArgument, "fusion is of the cuda device; the cpu has none");
  return std::make_unique<CpuDevice>(model, context);
}

constexpr DeviceRow kDevices[] = {
    {"cpu", "the processor, by the kernels that `upg kernels` lists", open_cpu},
    {"cuda", "an NVIDIA GPU, from compute capability 7.5 on", open_cuda},
};

}  // namespace

std::span<const DeviceRow> device_rows() { return kDevices; }

const DeviceRow& find_device(std::string_view name) {
  std::vector<std::string_view> known;
  for (const DeviceRow& row : kDevices) {
    if (row.name == name) return row;
    known.push_back(row.name);
  }
  fail(ErrorCode::kInvalidArgument, "no device \"{}\"; choose one of: {}", name, fmt::join(known, ", "));
}

}  // namespace upg
