#define MNEMO_KERNELS_AVX512
#define MNEMO_KERNELS_ISA "avx512"
#include "devices/cpu/kernels-inl.h"

namespace mnemo::devices::cpu {

const Kernels* Avx512Kernels() { return &kKernels; }

}  // namespace mnemo::devices::cpu
