#include "fpga/card/model/memory.h"

#include <algorithm>
#include <cstring>

namespace mnemo::card::model {
namespace {

constexpr uint8_t kUnwritten = 0xA5;

}  // namespace

void SparseMemory::Write(uint64_t address, std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const uint64_t at = address % kPieceBytes;
    const uint64_t size = std::min<uint64_t>(bytes.size(), kPieceBytes - at);
    std::unique_ptr<Piece>& piece = pieces_[address / kPieceBytes];
    if (piece == nullptr) {
      piece = std::make_unique<Piece>();
      piece->fill(kUnwritten);
    }
    std::memcpy(piece->data() + at, bytes.data(), size);
    bytes = bytes.subspan(size);
    address += size;
  }
}

void SparseMemory::Read(uint64_t address, std::span<uint8_t> bytes) const {
  while (!bytes.empty()) {
    const uint64_t at = address % kPieceBytes;
    const uint64_t size = std::min<uint64_t>(bytes.size(), kPieceBytes - at);
    const auto piece = pieces_.find(address / kPieceBytes);
    if (piece == pieces_.end()) {
      std::memset(bytes.data(), kUnwritten, size);
    } else {
      std::memcpy(bytes.data(), piece->second->data() + at, size);
    }
    bytes = bytes.subspan(size);
    address += size;
  }
}

bool HostMemory::Holds(uint64_t address, uint64_t size) const {
  return address >= address_ && size <= bytes_.size() && address - address_ <= bytes_.size() - size;
}

bool HostMemory::IsDirect(uint64_t address, uint64_t size) const {
  return address >= direct_address_ && size <= direct_bytes_ &&
         address - direct_address_ <= direct_bytes_ - size;
}

bool HostMemory::Read(uint64_t address, std::span<uint8_t> to) const {
  if (IsDirect(address, to.size())) {
    card_->Read(address, to);
    return true;
  }
  if (!Holds(address, to.size())) {
    return false;
  }
  std::copy_n(bytes_.data() + (address - address_), to.size(), to.data());
  return true;
}

bool HostMemory::Write(uint64_t address, std::span<const uint8_t> from) {
  if (IsDirect(address, from.size())) {
    card_->Write(address, from);
    return true;
  }
  if (!Holds(address, from.size())) {
    return false;
  }
  std::copy(from.begin(), from.end(), bytes_.data() + (address - address_));
  return true;
}

}  // namespace mnemo::card::model
