#pragma once

#include "server/memory/method.h"

namespace mnemo::memory::methods {

// Keys of 2, 4 or 8 bits, rotated and centred on their page; the very tokens that the query group ranks
// highest.
extern const Method kTokenTopk;

}  // namespace mnemo::memory::methods
