#include "codec/layout/dense.h"
#include "codec/layout/int8.h"
#include "kernels/cpu/vec_neon-inl.h"
//
#include "kernels/cpu/elementwise-inl.h"

UPG_ELEMENTWISE_KERNELS(neondot)
