// The structs are plain C: this compiles as C11, and uses each of them.
#include "proto/layout/attach.h"
#include "proto/layout/c_api.h"
#include "proto/layout/card.h"
#include "proto/layout/completion.h"
#include "proto/layout/descriptor.h"
#include "proto/layout/payload.h"
#include "proto/layout/record.h"
#include "proto/layout/ring.h"

int main(void) {
  const Descriptor descriptor = {.op = kOpScoreSelect, .score_op = kScoreDot, .select_op = kSelectTopK};
  const Completion completion = {.status = kStatusOk, .detail = kNoDetail};
  const RingHeader ring = {.magic = MNEMO_RING_MAGIC};
  const AttachHello hello = {.magic = MNEMO_ATTACH_MAGIC};
  const CardIndex index = {.exists = 1, .record_format = kFormatCodes2};
  return descriptor.op == 16 && completion.detail == 0xFFFF && ring.magic != hello.magic &&
                 mnemo_layout_hash() != 0 && index.exists == 1 && kCardRegMagic == 0x10
             ? 0
             : 1;
}
