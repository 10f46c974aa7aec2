#include "kernels/cpu/vec_avx2-inl.h"
//
#include "kernels/cpu/gemm-inl.h"

UPG_GEMM_KERNELS(avx2)
