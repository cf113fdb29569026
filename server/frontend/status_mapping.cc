#include "server/frontend/status_mapping.h"

#include "server/frontend/status_text.h"

namespace mnemo::frontend {

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  // The numbers of absl::StatusCode are those of grpc::StatusCode by definition of both.
  return {static_cast<grpc::StatusCode>(status.code()), StatusMessage(status)};
}

}  // namespace mnemo::frontend
