#include "codec/layout/dense.h"
#include "codec/layout/int8.h"
#include "kernels/cpu/vec_avx512-inl.h"
//
#include "kernels/cpu/elementwise-inl.h"

UPG_ELEMENTWISE_KERNELS(avx512vnni)
