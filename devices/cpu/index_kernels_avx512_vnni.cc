#define MNEMO_KERNELS_AVX512
#define MNEMO_KERNELS_VNNI
#define MNEMO_KERNELS_ISA "avx512_vnni"
#include "devices/cpu/index_kernels-inl.h"

namespace mnemo::devices::cpu {

const IndexKernels* Avx512VnniIndexKernels() { return &kIndexKernels; }

}  // namespace mnemo::devices::cpu
