#include "kernels/cpu/vec_neon-inl.h"
//
#include "kernels/cpu/attend-inl.h"

UPG_ATTEND_KERNELS(neondot)
