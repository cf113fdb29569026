#define MNEMO_KERNELS_ISA "baseline"
#include "devices/cpu/index_kernels-inl.h"

namespace mnemo::devices::cpu {

const IndexKernels* BaselineIndexKernels() { return &kIndexKernels; }

}  // namespace mnemo::devices::cpu
