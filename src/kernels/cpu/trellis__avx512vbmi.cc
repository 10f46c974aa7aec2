#include "kernels/cpu/mdcsr_avx512-inl.h"
//
#include "kernels/cpu/table_vbmi-inl.h"
//
#include "kernels/cpu/trellis_avx512-inl.h"

UPG_TRELLIS_KERNELS(avx512vbmi)
