// Tokens by a trained indexer (DeepSeek sparse attention). The protocol knows the method; no model file has
// its weights.
#include "server/memory/methods/method.h"

namespace mnemo::memory::methods {

constinit const Method kTokenIndexer = {.id = AttentionSettings::Method::kTokenIndexer,
                                        .name = "token_indexer",
                                        .weights = "a trained indexer",
                                        .without_weights = "token_topk"};

}  // namespace mnemo::memory::methods
