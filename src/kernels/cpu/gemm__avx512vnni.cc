#include "kernels/cpu/vec_avx512-inl.h"
//
#include "kernels/cpu/gemm-inl.h"

UPG_GEMM_KERNELS(avx512vnni)
