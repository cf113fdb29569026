#include "fpga/card/card_port.h"

#include "proto/layout/card.h"

namespace mnemo::card {

absl::Status ClearInterrupts(CardPort* port) {
  MNEMO_ASSIGN_OR_RETURN(const uint32_t status, port->ReadRegister(layout::kCardRegInterruptStatus));
  return port->WriteRegister(layout::kCardRegInterruptStatus, status);
}

}  // namespace mnemo::card
