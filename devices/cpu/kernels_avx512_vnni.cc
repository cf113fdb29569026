#define MNEMO_KERNELS_AVX512
#define MNEMO_KERNELS_VNNI
#define MNEMO_KERNELS_ISA "avx512_vnni"
#include "devices/cpu/kernels-inl.h"

namespace mnemo::devices::cpu {

const Kernels* Avx512VnniKernels() { return &kKernels; }

}  // namespace mnemo::devices::cpu
