#include "fpga/xrt/device_process.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "fpga/xrt/emulation.pb.h"
#include "fpga/xrt/xclbin_file.h"

namespace mnemo::xrt_card {
namespace {

constexpr size_t kCallHeaderBytes = 14;
constexpr uint64_t kBeatBytes = 64;
constexpr uint64_t kMaxBufferBytes = uint64_t{64} << 30;
// XRT sends data in pieces of 8 MiB.
constexpr uint64_t kMaxCallBytes = uint64_t{64} << 20;

absl::Status ReadAll(int fd, void* to, size_t size) {
  auto* at = static_cast<uint8_t*>(to);
  while (size > 0) {
    const ssize_t got = ::recv(fd, at, size, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return Unavailable("the host's socket ended");
    at += got;
    size -= static_cast<size_t>(got);
  }
  return absl::OkStatus();
}

absl::Status WriteAll(int fd, const std::string& bytes) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t sent = ::send(fd, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return Unavailable("the host's socket ended");
    done += static_cast<size_t>(sent);
  }
  return absl::OkStatus();
}

template <typename Message>
absl::StatusOr<Message> Parse(const std::string& bytes) {
  Message message;
  if (!message.ParseFromString(bytes)) return InvalidArgument("{}: not understood", message.GetTypeName());
  return message;
}

std::string Acknowledge() {
  emulation::Acknowledged answer;
  answer.set_ack(true);
  return answer.SerializeAsString();
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceProcess>> DeviceProcess::Connect(const std::string& socket_path,
                                                                      std::unique_ptr<EmulatedCard> card) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof address.sun_path) {
    return InvalidArgument("socket path {}: {} bytes, at most {}", socket_path, socket_path.size(),
                           sizeof address.sun_path - 1);
  }
  std::memcpy(address.sun_path, socket_path.data(), socket_path.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  // XRT starts this process before it listens.
  constexpr int kTries = 1000;
  constexpr int kPauseMs = 10;
  for (int tries = 0; tries < kTries; ++tries) {
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
      ::unlink(socket_path.c_str());  // XRT leaves its file, and nobody else connects
      return std::unique_ptr<DeviceProcess>(new DeviceProcess(std::move(fd), std::move(card)));
    }
    ::poll(nullptr, 0, kPauseMs);
  }
  return Unavailable("{}: {}", socket_path, std::strerror(errno));
}

DeviceProcess::DeviceProcess(UniqueFd socket, std::unique_ptr<EmulatedCard> card)
    : socket_(std::move(socket)), card_(std::move(card)) {}

DeviceProcess::~DeviceProcess() {
  card_.reset();  // before the memory that it works on
}

absl::Status DeviceProcess::Serve() {
  bool running = true;
  while (!closed_) {
    pollfd waiting{socket_.get(), POLLIN, 0};
    if (::poll(&waiting, 1, running ? 0 : -1) == 0) {
      running = card_->Run();
      continue;
    }
    char header_bytes[kCallHeaderBytes];
    MNEMO_RETURN_IF_ERROR(ReadAll(socket_.get(), header_bytes, sizeof header_bytes));
    MNEMO_ASSIGN_OR_RETURN(const auto header,
                           Parse<emulation::CallHeader>(std::string(header_bytes, sizeof header_bytes)));
    if (header.size() > kMaxCallBytes) {
      return InvalidArgument("call {}: {} bytes, at most {}", header.api(), header.size(), kMaxCallBytes);
    }
    std::string call(header.size(), '\0');
    MNEMO_RETURN_IF_ERROR(ReadAll(socket_.get(), call.data(), call.size()));
    MNEMO_ASSIGN_OR_RETURN(const std::string answer, Answer(header.api(), call));
    emulation::AnswerHeader size;
    size.set_size(answer.size());
    MNEMO_RETURN_IF_ERROR(WriteAll(socket_.get(), size.SerializeAsString() + answer));
    running = true;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> DeviceProcess::Answer(uint32_t api, const std::string& call) {
  switch (api) {
    case emulation::API_CLOSE: {
      MNEMO_ASSIGN_OR_RETURN(const auto close, Parse<emulation::Close>(call));
      closed_ = close.all();
      return Acknowledge();
    }
    case emulation::API_LOAD:
    case emulation::API_SET_ENVIRONMENT:
    case emulation::API_SETUP_INSTANCE:
    case emulation::API_DRIVER_VERSION:
      return Acknowledge();
    case emulation::API_ALLOCATE:
      return Allocate(call);
    case emulation::API_FREE: {
      MNEMO_ASSIGN_OR_RETURN(const auto of, Parse<emulation::Free>(call));
      card_->SetMemory(of.address(), {});
      buffers_.erase(of.address());
      return Acknowledge();
    }
    case emulation::API_HOST_TO_DEVICE:
    case emulation::API_DEVICE_TO_HOST:
      return Copy(api, call);
    case emulation::API_WRITE_REGISTERS:
    case emulation::API_READ_REGISTERS:
    case emulation::API_WRITE_REGISTER:
    case emulation::API_READ_REGISTER:
      return Registers(api, call);
    default:
      return InvalidArgument("call {} of XRT's emulation is not served", api);
  }
}

absl::StatusOr<std::string> DeviceProcess::Allocate(const std::string& call) {
  MNEMO_ASSIGN_OR_RETURN(const auto wanted, Parse<emulation::Allocate>(call));
  if (wanted.size() == 0 || wanted.size() > kMaxBufferBytes || wanted.address() % kBeatBytes != 0) {
    return InvalidArgument("buffer at {:#x}, {} bytes; allowed: addresses of whole beats, 1 to {} bytes",
                           wanted.address(), wanted.size(), kMaxBufferBytes);
  }
  const uint64_t bytes = (wanted.size() + kBeatBytes - 1) / kBeatBytes * kBeatBytes;
  MNEMO_ASSIGN_OR_RETURN(UniqueFd file, CreateMemfd("mnemo-card-buffer", bytes));
  MNEMO_ASSIGN_OR_RETURN(Mapping memory, Mapping::FromFd(file.get(), bytes, /*writable=*/true));
  Buffer& buffer = buffers_[wanted.address()];
  buffer = {std::move(file), std::move(memory)};
  card_->SetMemory(wanted.address(), BytesOf(buffer));
  emulation::Allocated answer;
  answer.set_ack(true);
  answer.set_file(fmt::format("/proc/{}/fd/{}", ::getpid(), buffer.file.get()));
  return answer.SerializeAsString();
}

std::span<uint8_t> DeviceProcess::BytesOf(const Buffer& buffer) {
  const std::span<std::byte> bytes = buffer.memory.mutable_bytes();
  return {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()};
}

std::span<uint8_t> DeviceProcess::Find(uint64_t address, uint64_t size) {
  auto after = buffers_.upper_bound(address);
  if (after == buffers_.begin()) return {};
  const auto& [base, buffer] = *--after;
  const std::span<uint8_t> memory = BytesOf(buffer);
  if (address - base > memory.size() || size > memory.size() - (address - base)) return {};
  return memory.subspan(address - base, size);
}

absl::StatusOr<std::string> DeviceProcess::Copy(uint32_t api, const std::string& call) {
  emulation::Copied answer;
  if (api == emulation::API_HOST_TO_DEVICE) {
    MNEMO_ASSIGN_OR_RETURN(const auto from, Parse<emulation::HostToDevice>(call));
    const std::span<uint8_t> to = Find(from.address(), from.data().size());
    if (to.empty() && !from.data().empty()) {
      return InvalidArgument("copy to {:#x}, {} bytes: not within a buffer", from.address(),
                             from.data().size());
    }
    std::memcpy(to.data(), from.data().data(), from.data().size());
    answer.set_size(from.data().size());
    return answer.SerializeAsString();
  }
  MNEMO_ASSIGN_OR_RETURN(const auto from, Parse<emulation::DeviceToHost>(call));
  const std::span<uint8_t> bytes = Find(from.address(), from.size());
  if (bytes.empty() && from.size() != 0) {
    return InvalidArgument("copy of {:#x}, {} bytes: not within a buffer", from.address(), from.size());
  }
  answer.set_size(bytes.size());
  answer.set_data(bytes.data(), bytes.size());
  return answer.SerializeAsString();
}

absl::StatusOr<std::string> DeviceProcess::Registers(uint32_t api, const std::string& call) {
  emulation::RegisterAnswer answer;
  answer.set_valid(true);
  const auto write = [&](uint64_t offset, const std::string& data) {
    for (size_t at = 0; at + sizeof(uint32_t) <= data.size(); at += sizeof(uint32_t)) {
      uint32_t value;
      std::memcpy(&value, data.data() + at, sizeof value);
      card_->WriteRegister(static_cast<uint32_t>(offset + at), value);
    }
  };
  const auto read = [&](uint64_t offset, uint32_t size) {
    std::string data(size, '\0');
    for (size_t at = 0; at + sizeof(uint32_t) <= data.size(); at += sizeof(uint32_t)) {
      const uint32_t value = card_->ReadRegister(static_cast<uint32_t>(offset + at));
      std::memcpy(data.data() + at, &value, sizeof value);
    }
    answer.set_data(data);
  };
  constexpr uint32_t kMaxRegisterBytes = 4096;
  if (api == emulation::API_WRITE_REGISTERS) {
    MNEMO_ASSIGN_OR_RETURN(const auto of, Parse<emulation::WriteRegisters>(call));
    write(of.address() - kKernelAddress, of.data());
  } else if (api == emulation::API_WRITE_REGISTER) {
    MNEMO_ASSIGN_OR_RETURN(const auto of, Parse<emulation::WriteRegister>(call));
    write(of.offset(), of.data());
  } else if (api == emulation::API_READ_REGISTERS) {
    MNEMO_ASSIGN_OR_RETURN(const auto of, Parse<emulation::ReadRegisters>(call));
    if (of.size() > kMaxRegisterBytes) return InvalidArgument("{} bytes of registers", of.size());
    read(of.address() - kKernelAddress, of.size());
  } else {
    MNEMO_ASSIGN_OR_RETURN(const auto of, Parse<emulation::ReadRegister>(call));
    if (of.size() > kMaxRegisterBytes) return InvalidArgument("{} bytes of registers", of.size());
    read(of.offset(), of.size());
  }
  return answer.SerializeAsString();
}

}  // namespace mnemo::xrt_card
