// UPG_UNROLL before a loop of constant length over a small array of vectors. GCC 12 decides about registers before it
// unrolls on its own accord: without this it keeps such arrays in memory, at a third of the speed.
#pragma once

#if defined(__clang__)
#define UPG_UNROLL _Pragma("unroll")
#else
#define UPG_UNROLL _Pragma("GCC unroll 32")
#endif
