#include "proto/layout/layout_hash.h"

#include <charconv>

namespace mnemo::layout {
namespace {

std::string Text(uint64_t value, int base) {
  char digits[20];
  const auto done = std::to_chars(std::begin(digits), std::end(digits), value, base);
  return (base == 16 ? "0x" : "") + std::string(std::begin(digits), done.ptr);
}

}  // namespace

AttachHello NewHello() {
  AttachHello hello{};
  hello.magic = MNEMO_ATTACH_MAGIC;
  hello.abi_major = kAbiMajor;
  hello.abi_minor = kAbiMinor;
  hello.layout_hash = kLayoutHash;
  hello.quantiser_id = kQuantiserId;
  return hello;
}

std::string CompareHello(const AttachHello& own, const AttachHello& peer) {
  struct Pair {
    const char* name;
    uint64_t own;
    uint64_t peer;
    int base;
  };
  for (const Pair& pair :
       {Pair{"magic", own.magic, peer.magic, 16}, Pair{"abi_major", own.abi_major, peer.abi_major, 10},
        Pair{"layout_hash", own.layout_hash, peer.layout_hash, 16},
        Pair{"quantiser_id", own.quantiser_id, peer.quantiser_id, 16}}) {
    if (pair.own != pair.peer) {
      return std::string(pair.name) + ": here " + Text(pair.own, pair.base) + ", the peer has " +
             Text(pair.peer, pair.base);
    }
  }
  return {};
}

}  // namespace mnemo::layout
