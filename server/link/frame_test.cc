#include "server/link/frame.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <vector>

#include "mnemo/internal/worker.pb.h"

namespace mnemo::link {
namespace {

using internal::v1::ToWorker;

ToWorker MakeSubmit(int tokens) {
  ToWorker message;
  for (int i = 0; i < tokens; ++i) message.mutable_submit()->add_prompt(i * 37);
  message.mutable_submit()->set_id(static_cast<uint64_t>(tokens));
  return message;
}

// Feeds `bytes` in pieces of at most `piece` bytes and returns all messages found.
std::vector<std::string> Feed(FrameReader& reader, std::string_view bytes, size_t piece) {
  std::vector<std::string> messages;
  while (!bytes.empty()) {
    const std::span<char> space = reader.Space();
    REQUIRE_FALSE(space.empty());
    const size_t count = std::min({piece, space.size(), bytes.size()});
    std::memcpy(space.data(), bytes.data(), count);
    reader.Add(count);
    bytes.remove_prefix(count);
    while (true) {
      const auto frame = reader.Next();
      REQUIRE(frame.ok());
      if (!*frame) break;
      messages.emplace_back(**frame);
    }
  }
  return messages;
}

TEST_CASE("messages are unchanged, however the stream is cut") {
  std::string bytes;
  std::vector<std::string> expected;
  for (const int tokens : {0, 1, 1000, 200000, 3, 0, 50000}) {
    const ToWorker message = MakeSubmit(tokens);
    expected.push_back(message.SerializeAsString());
    REQUIRE(AppendFrame(message, &bytes).ok());
  }
  REQUIRE(AppendFrame(ToWorker(), &bytes).ok());  // a message of no bytes
  expected.emplace_back();
  const size_t piece = GENERATE(1u, 3u, 4u, 5u, 1000u, 65536u, 1u << 24);
  FrameReader reader;
  CHECK(Feed(reader, bytes, piece) == expected);
  CHECK(Feed(reader, bytes, piece) == expected);
}

TEST_CASE("a length above the maximum of a frame is another protocol") {
  FrameReader reader;
  const std::string_view stranger = "PRI * HTTP/2.0\r\n\r\n";
  const std::span<char> space = reader.Space();
  std::memcpy(space.data(), stranger.data(), stranger.size());
  reader.Add(stranger.size());
  const absl::Status status = reader.Next().status();
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(status.message()),
             Catch::Contains(std::to_string(kMaxFrameBytes)) && Catch::Contains("541676112"));
}

TEST_CASE("a header with a large length allocates nothing before the bytes arrive") {
  FrameReader reader;
  const char header[] = {0, 0, 0, 4};  // 64 MiB, the maximum
  std::memcpy(reader.Space().data(), header, sizeof header);
  reader.Add(sizeof header);
  REQUIRE(reader.Next().ok());
  CHECK_FALSE(reader.Next()->has_value());
  CHECK(reader.Space().size() <= 1 << 20);
}

TEST_CASE("a message larger than a frame is refused by its sender") {
  ToWorker message;
  message.mutable_end_session()->set_session_id(std::string(kMaxFrameBytes, 'x'));
  std::string bytes = "before";
  const absl::Status status = AppendFrame(message, &bytes);
  CHECK(status.code() == absl::StatusCode::kResourceExhausted);
  CHECK_THAT(std::string(status.message()), Catch::Contains(std::to_string(kMaxFrameBytes)));
  CHECK(bytes == "before");
}

}  // namespace
}  // namespace mnemo::link
