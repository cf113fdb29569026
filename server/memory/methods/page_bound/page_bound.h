#pragma once

#include "server/memory/method.h"

namespace mnemo::memory::methods {

// Pages by an upper bound of query . key from the lowest and highest key element (LServe, Quest). A page of
// 64 takes the largest bound of its four logical pages of 16; a page's rank is the largest bound of its query
// group.
extern const Method kPageBound;

}  // namespace mnemo::memory::methods
