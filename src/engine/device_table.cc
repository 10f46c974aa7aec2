#include "engine/device_table.h"

#include <fmt/ranges.h>

#include "base/error.h"
#include "cuda/cuda_device.h"
#include "engine/cpu_device.h"

namespace upg {
namespace {

std::unique_ptr<Device> open_cpu(Model& model, OpContext& context, const DeviceOptions&) {
  return std::make_unique<CpuDevice>(model, context);
}

constexpr std::string_view kCudaFusions[] = {"none", "graph", "layer", "token"};

constexpr DeviceRow kDevices[] = {
    {"cpu", "the processor, by the kernels that `upg kernels` lists", {}, false, open_cpu},
    {"cuda", "an NVIDIA GPU, from compute capability 7.5 on", kCudaFusions, true, cuda::open_device},
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

std::string_view find_fusion(const DeviceRow& row, std::string_view fusion) {
  if (fusion.empty()) return row.fusions.empty() ? "" : row.fusions.back();
  for (std::string_view known : row.fusions)
    if (known == fusion) return known;
  if (row.fusions.empty()) fail(ErrorCode::kInvalidArgument, "the {} device has no fusions to choose from", row.name);
  fail(ErrorCode::kInvalidArgument, "no fusion \"{}\"; choose one of: {}", fusion, fmt::join(row.fusions, ", "));
}

DeviceOptions device_options(const DeviceRow& row, const EngineOptions& options) {
  const std::string_view fusion = find_fusion(row, options.fusion);
  if (options.gpu_layers && !row.takes_gpu_layers)
    fail(
        ErrorCode::kInvalidArgument,
        "{} layers on the GPU (--gpu-layers), but the {} device runs all layers itself: choose --device cuda, or leave "
        "the number out",
        *options.gpu_layers, row.name);
  if (options.gpu_layers == 0)
    fail(ErrorCode::kInvalidArgument,
         "0 layers on the GPU (--gpu-layers) leave it nothing to do: ask for 1 at least, or choose --device cpu");
  return {fusion, options.gpu_layers, options.progress};
}

std::vector<std::string_view> fusion_names(std::string_view device) {
  const auto fusions = find_device(device).fusions;
  return {fusions.begin(), fusions.end()};
}

}  // namespace upg
