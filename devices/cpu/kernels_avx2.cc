#define MNEMO_KERNELS_AVX2
#define MNEMO_KERNELS_ISA "avx2"
#include "devices/cpu/kernels-inl.h"

namespace mnemo::devices::cpu {

const Kernels* Avx2Kernels() { return &kKernels; }

}  // namespace mnemo::devices::cpu
