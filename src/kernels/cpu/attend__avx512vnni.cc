#include "kernels/cpu/vec_avx512-inl.h"
//
#include "kernels/cpu/attend-inl.h"

UPG_ATTEND_KERNELS(avx512vnni)
