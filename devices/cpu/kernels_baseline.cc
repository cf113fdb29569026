#define MNEMO_KERNELS_ISA "baseline"
#include "devices/cpu/kernels-inl.h"

namespace mnemo::devices::cpu {

const Kernels* BaselineKernels() { return &kKernels; }

}  // namespace mnemo::devices::cpu
