#define MNEMO_KERNELS_AVX512
#define MNEMO_KERNELS_ISA "avx512"
#include "devices/cpu/index_kernels-inl.h"

namespace mnemo::devices::cpu {

const IndexKernels* Avx512IndexKernels() { return &kIndexKernels; }

}  // namespace mnemo::devices::cpu
