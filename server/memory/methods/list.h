// The methods of this build, one line each: the number in mnemo.v1.AttentionMethod, and the constant that the
// method's folder defines. `mnemo profile` compares them in this order.
#pragma once

#define MNEMO_MEMORY_METHODS(X) \
  X(6, TokenTopk)               \
  X(7, Cascade)                 \
  X(2, PageBound)               \
  X(4, BlockMean)               \
  X(3, BlockGate)               \
  X(5, TokenIndexer)
