// One stream of Generate: the request core's sink over gRPC's callback API.
#pragma once

#include <grpcpp/grpcpp.h>

#include "mnemo/v1/generation.pb.h"
#include "server/frontend/service_context.h"
#include "server/frontend/validate.h"

namespace mnemo::frontend {

// The reactor of a new call; it frees itself. `context` outlives the call.
grpc::ServerWriteReactor<v1::GenerateResponse>* StartGenerate(ServiceContext* context,
                                                              grpc::CallbackServerContext* call,
                                                              const v1::GenerateRequest* request,
                                                              Drawn drawn);

// The trailer that tells a client when to try again; negative: not at all (gRPC's retry design, A6).
void AddPushback(grpc::CallbackServerContext* call, int milliseconds);

}  // namespace mnemo::frontend
