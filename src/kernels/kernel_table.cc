#include <cstdlib>
#if UPG_X86_SIMD
#include <cpuid.h>
#endif
#if UPG_X86_SIMD && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if UPG_ARM_SIMD && defined(__linux__)
#include <sys/auxv.h>
#endif

#include "base/error.h"
#include "kernels/kernel.h"

namespace upg::kernels {

#define UPG_OP(op, Fn) using op##Fn_t = std::remove_pointer_t<Fn>;
#include "kernels/ops.inc"
#undef UPG_OP
#define UPG_KERNEL(op, variant, isa, bound) op##Fn_t op##_##variant##__##isa;
#include "kernels/kernels.inc"
#undef UPG_KERNEL

namespace {

// One array per op, from the one list: a row lands in the array of its op and in no other.
enum class Op {
#define UPG_OP(op, Fn) op,
#include "kernels/ops.inc"
#undef UPG_OP
};

template <Op kOp, typename Fn>
std::vector<Kernel<Fn>> rows_of() {
  std::vector<Kernel<Fn>> rows;
#define UPG_KERNEL(op, variant, isa, bound) \
  if constexpr (kOp == Op::op)              \
    rows.push_back({#op "_" #variant "__" #isa, #variant, #isa, bound, &op##_##variant##__##isa});
#include "kernels/kernels.inc"
#undef UPG_KERNEL
  return rows;
}

#if UPG_X86_SIMD
// GCC 12's __builtin_cpu_supports does not know these names. Asked once: in a virtual machine `cpuid` is its host's.
bool has_avx_vnni() {
  static const bool present = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & (1u << 4)) != 0;
  }();
  return present;
}
bool has_amx_int8() {
  static const bool present = [] {
    constexpr unsigned kTiles = 1u << 24, kInt8 = 1u << 25;
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kTiles) != 0 && (d & kInt8) != 0;
  }();
  return present;
}
// Linux keeps 8 KiB of tiles only for processes that have asked; asked once, for all threads.
bool tiles_permitted() {
#if defined(__linux__)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool permitted = has_amx_int8() && ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return permitted;
#else
  return false;
#endif
}
#endif

std::vector<std::string> forced() {
  std::vector<std::string> names;
  const char* value = std::getenv("UPG_FORCE_KERNEL");
  std::string_view rest = value ? value : "";
  while (!rest.empty()) {
    const size_t comma = rest.find(',');
    if (comma != 0) names.emplace_back(rest.substr(0, comma));
    rest = comma == rest.npos ? "" : rest.substr(comma + 1);
  }
  return names;
}

bool is_forced(const std::vector<std::string>& names, std::string_view name, std::string_view isa) {
  for (const std::string& forced_name : names)
    if (forced_name == name || forced_name == isa) return true;
  return false;
}

// Index of the chosen row among `rows`, or -1. `Row` has name, variant and isa.
template <typename Row>
int choose(std::span<const Row> rows, std::string_view variant) {
  const std::vector<std::string> names = forced();
  bool restricted = false;
  for (const Row& row : rows)
    restricted |=
        variant_matches(row.variant, variant) && is_forced(names, row.name, row.isa) && isa_available(row.isa);
  for (size_t i = 0; i < rows.size(); ++i) {
    if (!variant_matches(rows[i].variant, variant) || !isa_available(rows[i].isa)) continue;
    if (restricted && !is_forced(names, rows[i].name, rows[i].isa)) continue;
    return static_cast<int>(i);
  }
  return -1;
}

}  // namespace

#define UPG_OP(op, Fn)                                                 \
  std::span<const Kernel<Fn>> op##_kernels() {                         \
    static const std::vector<Kernel<Fn>> rows = rows_of<Op::op, Fn>(); \
    return rows;                                                       \
  }
#include "kernels/ops.inc"
#undef UPG_OP

template <typename Fn>
const Kernel<Fn>& select(std::span<const Kernel<Fn>> list, std::string_view variant) {
  const int chosen = choose(list, variant);
  if (chosen < 0) fail(ErrorCode::kUnsupported, "no kernel for \"{}\" can run on this machine", variant);
  return list[static_cast<size_t>(chosen)];
}

#define UPG_OP(op, Fn) template const Kernel<Fn>& select<Fn>(std::span<const Kernel<Fn>>, std::string_view);
#include "kernels/ops.inc"
#undef UPG_OP

bool variant_matches(std::string_view row, std::string_view wanted) {
  if (row.starts_with("any")) return wanted.ends_with(row.substr(3));
  return row == wanted;
}

bool isa_available(std::string_view isa, std::string* why_not) {
  if (isa == "ref") return true;
#if UPG_X86_SIMD
  struct Feature {
    std::string_view isa, name;
    bool present;
  };
  const Feature features[] = {
      {"avx2", "AVX2", __builtin_cpu_supports("avx2") != 0},
      {"avx2", "FMA", __builtin_cpu_supports("fma") != 0},
      {"avxvnni", "AVX2 and FMA", isa == "avxvnni" && isa_available("avx2")},
      {"avxvnni", "AVX-VNNI", has_avx_vnni()},
      {"avx512vnni", "AVX-512F", __builtin_cpu_supports("avx512f") != 0},
      {"avx512vnni", "AVX-512BW", __builtin_cpu_supports("avx512bw") != 0},
      {"avx512vnni", "AVX-512DQ", __builtin_cpu_supports("avx512dq") != 0},
      {"avx512vnni", "AVX-512VL", __builtin_cpu_supports("avx512vl") != 0},
      {"avx512vnni", "AVX-512 VNNI", __builtin_cpu_supports("avx512vnni") != 0},
      {"avx512vbmi", "AVX-512 VNNI", isa == "avx512vbmi" && isa_available("avx512vnni")},
      {"avx512vbmi", "AVX-512 VBMI", __builtin_cpu_supports("avx512vbmi") != 0},
      {"amxint8", "AVX-512 VBMI", isa == "amxint8" && isa_available("avx512vbmi")},
      {"amxint8", "AMX-INT8", has_amx_int8()},
      {"amxint8", "AMX that Linux lets programs use", isa == "amxint8" && tiles_permitted()},
  };
  bool known = false;
  for (const Feature& feature : features) {
    if (feature.isa != isa) continue;
    known = true;
    if (feature.present) continue;
    if (why_not) *why_not = fmt::format("this processor has no {}", feature.name);
    return false;
  }
  if (known) return true;
#elif UPG_ARM_SIMD
  if (isa == "neondot") {
#if defined(__linux__)
    const bool present = (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
    const bool present = true;  // every Mac has it
#endif
    if (!present && why_not) *why_not = "this processor has no dot products (asimddp)";
    return present;
  }
#endif
  if (why_not) *why_not = "not in this build";
  return false;
}

std::vector<KernelStatus> kernel_statuses() {
  std::vector<KernelStatus> statuses;
#define UPG_OP(op, Fn)                                                                                 \
  for (const Kernel<Fn>& row : op##_kernels()) {                                                       \
    KernelStatus status{#op, row.variant, row.name, false, ""};                                        \
    /* A reference row for any codec is what a codec without rows of its own gets. */                  \
    const int chosen = choose(op##_kernels(), row.variant);                                            \
    status.selected = chosen >= 0 && &op##_kernels()[static_cast<size_t>(chosen)] == &row;             \
    if (!status.selected && isa_available(row.isa, &status.reason))                                    \
      status.reason = fmt::format("{} comes first", op##_kernels()[static_cast<size_t>(chosen)].name); \
    statuses.push_back(status);                                                                        \
  }
#include "kernels/ops.inc"
#undef UPG_OP
  return statuses;
}

void check_forced_kernels() {
  for (const std::string& name : forced()) {
    bool known = false;
#define UPG_KERNEL(op, variant, isa, bound) known |= name == #isa || name == #op "_" #variant "__" #isa;
#include "kernels/kernels.inc"
#undef UPG_KERNEL
    if (!known)
      fail(ErrorCode::kInvalidArgument,
           "UPG_FORCE_KERNEL names \"{}\", which is neither a kernel nor an instruction set of this build; "
           "`upg kernels` lists both",
           name);
  }
}

}  // namespace upg::kernels
