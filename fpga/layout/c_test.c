// The structs are plain C: this compiles as C11, and uses each of them.
#include "fpga/layout/attach.h"
#include "fpga/layout/c_api.h"
#include "fpga/layout/completion.h"
#include "fpga/layout/descriptor.h"
#include "fpga/layout/payload.h"
#include "fpga/layout/record.h"
#include "fpga/layout/ring.h"

int main(void) {
  const Descriptor descriptor = {.op = kOpScoreSelect, .score_op = kScoreDot, .select_op = kSelectTopK};
  const Completion completion = {.status = kStatusOk, .detail = kNoDetail};
  const RingHeader ring = {.magic = MNEMO_RING_MAGIC};
  const AttachHello hello = {.magic = MNEMO_ATTACH_MAGIC};
  return descriptor.op == 16 && completion.detail == 0xFFFF && ring.magic != hello.magic &&
                 mnemo_layout_hash() != 0
             ? 0
             : 1;
}
