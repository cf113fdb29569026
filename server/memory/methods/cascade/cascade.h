#pragma once

#include "server/memory/method.h"

namespace mnemo::memory::methods {

// Bases and sign planes keep first_stage_tokens, all planes rank these: token_topk at half the bytes.
extern const Method kCascade;

}  // namespace mnemo::memory::methods
