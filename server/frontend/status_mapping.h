// The one place where an absl::Status becomes a gRPC status.
#pragma once

#include <grpcpp/support/status.h>

#include "devices/base/status.h"

namespace mnemo::frontend {

// Same code; the message is that of StatusMessage (status_text.h).
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace mnemo::frontend
