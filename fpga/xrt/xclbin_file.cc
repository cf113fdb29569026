#include "fpga/xrt/xclbin_file.h"

#include <fmt/format.h>
#include <xclbin.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace mnemo::xrt_card {
namespace {

using Bytes = std::vector<uint8_t>;

struct Section {
  axlf_section_kind kind;
  std::string name;
  Bytes data;
};

// An array of `Item` behind a count of type `Count`, whose first item lies at `first`.
template <typename Count, typename Item>
Bytes CountedArray(size_t first, const std::vector<Item>& items) {
  Bytes bytes(first + items.size() * sizeof(Item));
  const auto count = static_cast<Count>(items.size());
  std::memcpy(bytes.data(), &count, sizeof count);
  if (!items.empty()) std::memcpy(bytes.data() + first, items.data(), items.size() * sizeof(Item));
  return bytes;
}

template <size_t kSize, typename Char>
void CopyName(const std::string& name, Char (&to)[kSize]) {
  std::memcpy(to, name.data(), std::min(name.size(), kSize - 1));
}

Bytes Memories(const XclbinSpec& spec) {
  std::vector<mem_data> memories;
  for (uint32_t n = 0; n <= spec.channels; ++n) {
    const bool host = n == spec.channels;
    mem_data memory{};
    memory.m_type = host ? MEM_HOST : MEM_HBM;
    memory.m_used = 1;
    memory.m_size = (host ? spec.host_bytes : spec.channel_bytes) / 1024;
    memory.m_base_address = n * spec.channel_bytes;
    CopyName(host ? "HOST[0]" : fmt::format("HBM[{}]", n), memory.m_tag);
    memories.push_back(memory);
  }
  return CountedArray<int32_t>(offsetof(mem_topology, m_mem_data), memories);
}

Bytes Connections(const XclbinSpec& spec) {
  std::vector<connection> connections;
  for (uint32_t n = 0; n <= spec.channels; ++n) {
    connections.push_back({static_cast<int32_t>(n), 0, static_cast<int32_t>(n)});
  }
  return CountedArray<int32_t>(offsetof(connectivity, m_connection), connections);
}

Bytes Kernels() {
  ip_data kernel{};
  kernel.m_type = IP_KERNEL;
  kernel.properties = AP_CTRL_NONE << IP_CONTROL_SHIFT;
  kernel.m_base_address = kKernelAddress;
  CopyName(fmt::format("{}:{}", kKernelName, kInstanceName), kernel.m_name);
  return CountedArray<int32_t>(offsetof(ip_layout, m_ip_data), std::vector<ip_data>{kernel});
}

Bytes Clocks(const XclbinSpec& spec) {
  clock_freq clock{};
  clock.m_freq_Mhz = spec.clock_mhz;
  clock.m_type = CT_DATA;
  CopyName("DATA_CLK", clock.m_name);
  return CountedArray<int16_t>(offsetof(clock_freq_topology, m_clock_freq), std::vector<clock_freq>{clock});
}

Bytes Text(const std::string& text) { return {text.begin(), text.end()}; }

// Names the kernel, its register port and its memory ports; XRT reads sizes and addresses from it.
std::string Metadata(const XclbinSpec& spec) {
  std::string ports = fmt::format(
      R"(<port name="s_axi_control" mode="slave" range="{:#x}" dataWidth="32" portType="addressable" base="0x0"/>)",
      kKernelRegisterBytes);
  std::string arguments;
  for (uint32_t n = 0; n <= spec.channels; ++n) {
    const std::string port = n == spec.channels ? "m_axi_host" : fmt::format("m_axi_{:02}", n);
    ports += fmt::format(
        R"(<port name="{}" mode="master" range="0xFFFFFFFFFFFFFFFF" dataWidth="512" portType="addressable" base="0x0"/>)",
        port);
    // No register holds these addresses for XRT: the driver writes them.
    arguments += fmt::format(
        R"(<arg name="{0}" addressQualifier="1" id="{1}" port="{0}" size="0x8" offset="{2:#x}" hostOffset="0x0" hostSize="0x8" type="void*"/>)",
        port, n, kKernelRegisterBytes - 8 * (spec.channels + 1 - n));
  }
  return fmt::format(
      R"(<?xml version="1.0" encoding="UTF-8"?><project name="{0}"><platform vendor="xilinx" boardid="u55c" name="{1}">)"
      R"(<device name="fpga0"><core name="OCL_REGION_0" target="csim" type="clc_region" clockFreq="{2}MHz">)"
      R"(<kernel name="{0}" language="ip_c" type="user_managed">{3}{4}<instance name="{5}">)"
      R"(<addrRemap base="{6:#x}" range="{7:#x}" port="s_axi_control"/></instance></kernel></core></device></platform></project>)",
      kKernelName, spec.platform, spec.clock_mhz, ports, arguments, kInstanceName, kKernelAddress,
      kKernelRegisterBytes);
}

std::string BuildMetadata(const XclbinSpec& spec) {
  return fmt::format(
      R"({{"build_metadata":{{"xclbin":{{"generated_by":{{"name":"mnemo","version":"2022.1"}},)"
      R"("packaged_by":{{"name":"mnemo","version":"2.13"}},"user_regions":[{{"kernels":[{{"name":"{}",)"
      R"("instances":[{{"name":"{}"}}]}}]}}]}},"dsa":{{"vendor":"xilinx","name":"{}"}}}}}})",
      kKernelName, kInstanceName, spec.platform);
}

}  // namespace

std::vector<uint8_t> MakeEmulationXclbin(const XclbinSpec& spec) {
  const std::vector<Section> sections = {
      {BITSTREAM, "", Text("emulation: no bitstream")},
      {EMBEDDED_METADATA, "", Text(Metadata(spec))},
      {MEM_TOPOLOGY, "", Memories(spec)},
      {CONNECTIVITY, "", Connections(spec)},
      {ASK_GROUP_TOPOLOGY, "", Memories(spec)},
      {ASK_GROUP_CONNECTIVITY, "", Connections(spec)},
      {IP_LAYOUT, "", Kernels()},
      {CLOCK_FREQ_TOPOLOGY, "", Clocks(spec)},
      {BUILD_METADATA, "", Text(BuildMetadata(spec))},
  };
  // struct axlf ends with the first of the section headers.
  const size_t headers_at = offsetof(axlf, m_sections);
  Bytes file(headers_at + sections.size() * sizeof(axlf_section_header));
  std::vector<axlf_section_header> headers;
  for (const Section& section : sections) {
    file.resize((file.size() + 7) / 8 * 8);
    axlf_section_header header{};
    header.m_sectionKind = section.kind;
    header.m_sectionOffset = file.size();
    header.m_sectionSize = section.data.size();
    headers.push_back(header);
    file.insert(file.end(), section.data.begin(), section.data.end());
  }
  axlf top{};
  std::memcpy(top.m_magic, "xclbin2", 8);
  top.m_signature_length = -1;
  std::memset(top.reserved, 0xFF, sizeof top.reserved);
  top.m_header.m_length = file.size();
  top.m_header.m_versionMajor = 2;
  top.m_header.m_versionMinor = 13;
  top.m_header.m_mode = XCLBIN_SW_EMU;
  CopyName(spec.platform, top.m_header.m_platformVBNV);
  top.m_header.m_numSections = static_cast<uint32_t>(sections.size());
  const XXH128_hash_t hash = XXH3_128bits(file.data() + headers_at, file.size() - headers_at);
  std::memcpy(top.m_header.uuid, &hash, sizeof top.m_header.uuid);
  top.m_uniqueId = hash.low64;
  std::memcpy(file.data(), &top, headers_at);
  std::memcpy(file.data() + headers_at, headers.data(), headers.size() * sizeof headers[0]);
  return file;
}

}  // namespace mnemo::xrt_card
