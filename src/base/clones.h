// UPG_CLONES before a function of plain loops: compiled for several instruction sets, chosen at load time. Sources that
// use it are compiled without contraction (cmake/layers.cmake), so that every clone gives the same bits.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__) && \
    !defined(__SANITIZE_ADDRESS__)
#define UPG_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define UPG_CLONES
#endif
