#include "kernels/cpu/vec_avx2-inl.h"
//
#include "kernels/cpu/attend-inl.h"

UPG_ATTEND_KERNELS(avx2)
