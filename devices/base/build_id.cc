#include "devices/base/build_id.h"

#include <elf.h>
#include <fmt/format.h>
#include <link.h>

#include <cstring>
#include <span>

namespace mnemo {
namespace {

// Finds the build id among the notes of one segment. Each note is a header, a name and a description, padded
// to 4 bytes.
std::string FindInNotes(std::span<const unsigned char> notes) {
  while (notes.size() >= sizeof(ElfW(Nhdr))) {
    ElfW(Nhdr) header;
    std::memcpy(&header, notes.data(), sizeof(header));
    const size_t name_bytes = (size_t{header.n_namesz} + 3) / 4 * 4;
    const size_t description_bytes = (size_t{header.n_descsz} + 3) / 4 * 4;
    if (notes.size() - sizeof(header) < name_bytes + description_bytes) break;
    const unsigned char* name = notes.data() + sizeof(header);
    if (header.n_type == NT_GNU_BUILD_ID && header.n_namesz == 4 && std::memcmp(name, "GNU", 4) == 0) {
      std::string id;
      for (size_t i = 0; i < header.n_descsz; ++i) id += fmt::format("{:02x}", name[name_bytes + i]);
      return id;
    }
    notes = notes.subspan(sizeof(header) + name_bytes + description_bytes);
  }
  return {};
}

// The first object is the program itself.
int Visit(dl_phdr_info* info, size_t, void* result) {
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_NOTE) continue;
    const auto* begin = reinterpret_cast<const unsigned char*>(info->dlpi_addr + segment.p_vaddr);
    const std::string id = FindInNotes({begin, segment.p_memsz});
    if (!id.empty()) {
      *static_cast<std::string*>(result) = id;
      return 1;
    }
  }
  return 1;
}

}  // namespace

std::string BuildId() {
  std::string id;
  ::dl_iterate_phdr(Visit, &id);
  return id.empty() ? std::string(kUnknownBuildId) : id;
}

}  // namespace mnemo
