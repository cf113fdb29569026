#pragma once

#include "server/memory/method.h"

namespace mnemo::memory::methods {

// Pages by the mean of their keys: the training-free form of SeerAttention-R. The softmax of the group is
// summed.
extern const Method kBlockMean;

}  // namespace mnemo::memory::methods
