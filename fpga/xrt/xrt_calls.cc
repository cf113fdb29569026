#include "fpga/xrt/xrt_calls.h"

#include <experimental/xrt_ip.h>
#include <experimental/xrt_xclbin.h>
#include <fmt/ranges.h>
#include <unistd.h>
#include <xclbin.h>
#include <xrt/xrt_bo.h>
#include <xrt/xrt_device.h>

#include <cerrno>
#include <condition_variable>
#include <exception>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "fpga/xrt/xclbin_file.h"

namespace mnemo::xrt_card {
namespace {

std::string InstanceName() { return fmt::format("{}:{}", kKernelName, kInstanceName); }

// The clock of the kernel; 0: the image does not tell it.
uint32_t ClockOf(const xrt::xclbin& image) {
  const auto* const clocks = image.get_axlf_section<const clock_freq_topology*>(CLOCK_FREQ_TOPOLOGY);
  for (int n = 0; clocks != nullptr && n < clocks->m_count; ++n) {
    if (clocks->m_clock_freq[n].m_type == CT_DATA) return clocks->m_clock_freq[n].m_freq_Mhz;
  }
  return 0;
}

class Calls final : public XrtCalls {
 public:
  void Open(const std::string& device) override {
    device_ = IsIndex(device) ? xrt::device(static_cast<unsigned>(std::stoul(device))) : xrt::device(device);
  }
  void Reset() override { device_.reset(); }
  void Load(const std::string& xclbin) override {
    image_ = xrt::xclbin(xclbin);
    const xrt::uuid id = device_.load_xclbin(image_);
    kernel_ = xrt::ip(device_, id, fmt::format("{}:{{{}}}", kKernelName, kInstanceName));
  }
  std::string Name() override { return device_.get_info<xrt::info::device::name>(); }
  uint32_t ReadRegister(uint32_t offset) override { return kernel_.read_register(offset); }
  void WriteRegister(uint32_t offset, uint32_t value) override { kernel_.write_register(offset, value); }

  std::vector<PortMemory> Ports() override {
    std::vector<PortMemory> ports;
    for (const xrt::xclbin::arg& argument : image_.get_ip(InstanceName()).get_args()) {
      const xrt::xclbin::mem memory = argument.get_mems().at(0);
      ports.push_back({static_cast<uint32_t>(memory.get_index()), memory.get_size_kb() * 1024});
    }
    return ports;
  }
  uint64_t TakeChannel(uint32_t group, uint64_t bytes) override {
    return channels_.emplace_back(device_, bytes, xrt::bo::flags::normal, group).address();
  }
  void WriteChannel(uint32_t channel, uint64_t offset, std::span<const uint8_t> bytes) override {
    xrt::bo& memory = channels_.at(channel);
    memory.write(bytes.data(), bytes.size(), offset);
    memory.sync(XCL_BO_SYNC_BO_TO_DEVICE, bytes.size(), offset);
  }
  void ReadChannel(uint32_t channel, uint64_t offset, std::span<uint8_t> bytes) override {
    xrt::bo& memory = channels_.at(channel);
    memory.sync(XCL_BO_SYNC_BO_FROM_DEVICE, bytes.size(), offset);
    memory.read(bytes.data(), bytes.size(), offset);
  }
  MappedHost TakeHost(HostMemory memory, uint32_t group, uint64_t bytes) override {
    host_ = xrt::bo(device_, bytes,
                    memory == HostMemory::kHost ? xrt::bo::flags::host_only : xrt::bo::flags::p2p, group);
    return {.bytes = {host_.map<uint8_t*>(), bytes}, .address = host_.address()};
  }

  InterruptLine TakeInterrupts(std::function<void()> clear) override {
    // Waiting with a bound leaves the event to the wait without one, which enables the next.
    const auto notify = std::make_shared<xrt::ip::interrupt>(kernel_.create_interrupt_notify());
    return {.raised =
                [notify](std::chrono::milliseconds most) {
                  return notify->wait(most) == std::cv_status::no_timeout;
                },
            .take =
                [notify, clear = std::move(clear)] {
                  clear();
                  notify->wait();
                }};
  }
  std::string Electrical() override { return device_.get_info<xrt::info::device::electrical>(); }
  std::string Thermal() override { return device_.get_info<xrt::info::device::thermal>(); }

 private:
  xrt::device device_;
  xrt::xclbin image_;
  xrt::ip kernel_;
  // Whole channels. XRT copies only to objects that have a copy in the host's memory, of the same size.
  std::vector<xrt::bo> channels_;
  xrt::bo host_;
};

}  // namespace

std::unique_ptr<XrtCalls> MakeXrtCalls() { return std::make_unique<Calls>(); }

absl::StatusOr<XrtImage> ReadImage(const std::string& path) {
  if (path.empty()) return InvalidArgument("xclbin: the path of the card's image is missing");
  if (::access(path.c_str(), R_OK) != 0) {
    return absl::Status(errno == EACCES ? absl::StatusCode::kPermissionDenied : absl::StatusCode::kNotFound,
                        fmt::format("xclbin: {}: {}", path, std::generic_category().message(errno)));
  }
  try {
    const xrt::xclbin file(path);
    std::vector<std::string> names;
    for (const xrt::xclbin::ip& ip : file.get_ips()) names.push_back(ip.get_name());
    if (!file.get_ip(InstanceName())) {
      return InvalidArgument("xclbin {}: no kernel {}; it has: {}; fpga/build makes it for a platform", path,
                             InstanceName(), fmt::join(names, ", "));
    }
    return XrtImage{.platform = file.get_xsa_name(),
                    .uuid = file.get_uuid().to_string(),
                    .clock_mhz = ClockOf(file),
                    .emulation = file.get_target_type() != xrt::xclbin::target_type::hw};
  } catch (const std::exception& error) {
    return InvalidArgument("xclbin {}: {}; fpga/build makes it for a platform", path, error.what());
  }
}

}  // namespace mnemo::xrt_card
