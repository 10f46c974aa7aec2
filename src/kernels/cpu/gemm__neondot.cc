#include "kernels/cpu/vec_neon-inl.h"
//
#include "kernels/cpu/gemm-inl.h"

UPG_GEMM_KERNELS(neondot)
