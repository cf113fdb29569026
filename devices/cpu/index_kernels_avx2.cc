#define MNEMO_KERNELS_AVX2
#define MNEMO_KERNELS_ISA "avx2"
#include "devices/cpu/index_kernels-inl.h"

namespace mnemo::devices::cpu {

const IndexKernels* Avx2IndexKernels() { return &kIndexKernels; }

}  // namespace mnemo::devices::cpu
