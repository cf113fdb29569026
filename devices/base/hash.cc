#include "devices/base/hash.h"

#include <xxhash.h>

#include "devices/base/status.h"

namespace mnemo {

struct Hasher::State {
  XXH3_state_t* const xxh = XXH3_createState();
  State() { MNEMO_CHECK(xxh != nullptr && XXH3_128bits_reset(xxh) == XXH_OK); }
  ~State() { XXH3_freeState(xxh); }
};

std::string Digest::Text() const { return fmt::format("{:016x}{:016x}", high, low); }

Hasher::Hasher() : state_(std::make_unique<State>()) {}
Hasher::~Hasher() = default;

void Hasher::Add(std::span<const std::byte> bytes) {
  MNEMO_CHECK(XXH3_128bits_update(state_->xxh, bytes.data(), bytes.size()) == XXH_OK);
}

void Hasher::AddText(std::string_view text) {
  AddNumber(text.size());
  Add(std::as_bytes(std::span(text)));
}

void Hasher::AddNumber(uint64_t value) { Add(std::as_bytes(std::span(&value, 1))); }

Digest Hasher::digest() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(state_->xxh);
  return {hash.high64, hash.low64};
}

}  // namespace mnemo
