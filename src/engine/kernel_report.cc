#include "kernels/kernel.h"
#include "upg/kernels.h"

namespace upg {

std::vector<KernelReport> kernel_report() {
  kernels::check_forced_kernels();
  std::vector<KernelReport> reports;
  for (const kernels::KernelStatus& s : kernels::kernel_statuses())
    reports.push_back({std::string(s.op), std::string(s.variant), std::string(s.name), s.selected, s.reason});
  return reports;
}

}  // namespace upg
