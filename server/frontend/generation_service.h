// mnemo.v1.Generation.
#pragma once

#include <grpcpp/impl/service_type.h>

#include <memory>

#include "server/frontend/service_context.h"

namespace mnemo::frontend {

// `context` outlives the service.
std::unique_ptr<grpc::Service> MakeGenerationService(ServiceContext* context);

}  // namespace mnemo::frontend
