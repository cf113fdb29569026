#include "server/frontend/service_notifier.h"

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "tests/support/eventually.h"

namespace mnemo::frontend {
namespace {

using std::chrono::milliseconds;

struct Told {
  std::mutex mutex;
  std::vector<std::string> messages;
  std::atomic<uint64_t> progress = 0;

  std::unique_ptr<ServiceNotifier> Notifier(milliseconds interval) {
    return std::make_unique<ServiceNotifier>(
        ServiceNotifier::Options{.send =
                                     [this](const std::string& state) {
                                       std::lock_guard lock(mutex);
                                       messages.push_back(state);
                                     },
                                 .progress = [this] { return progress.load(); },
                                 .interval = interval});
  }
  std::vector<std::string> Messages() {
    std::lock_guard lock(mutex);
    return messages;
  }
  int Count(const std::string& part) {
    std::lock_guard lock(mutex);
    return static_cast<int>(std::count_if(messages.begin(), messages.end(), [&](const std::string& message) {
      return message.find(part) != std::string::npos;
    }));
  }
  std::string Last() {
    std::lock_guard lock(mutex);
    return messages.empty() ? "" : messages.back();
  }
};

TEST_CASE("READY=1 goes out once, when the server listens and a worker is ready") {
  Told told;
  const auto notifier = told.Notifier(std::chrono::hours(1));
  notifier->Loading("packing weights");
  CHECK(told.Last() == "STATUS=packing weights");
  SECTION("the worker is later") {
    notifier->Listening("serving m on a", milliseconds(60000));
    CHECK(told.Count("EXTEND_TIMEOUT_USEC=90000000") == 1);
    CHECK(told.Last() == "STATUS=starting workers");
    notifier->SetReady(true);
  }
  SECTION("the worker is first") {
    notifier->SetReady(true);
    CHECK(told.Count("READY=1") == 0);
    notifier->Listening("serving m on a", milliseconds(60000));
  }
  CHECK(told.Last() == "READY=1\nSTATUS=serving m on a");
  notifier->SetReady(false);
  CHECK(told.Last() == "STATUS=no worker takes requests");
  notifier->SetReady(true);
  CHECK(told.Last() == "STATUS=serving m on a");
  CHECK(told.Count("READY=1") == 1);
  notifier->Stopping("draining");
  notifier->SetReady(false);
  CHECK(told.Last() == "STOPPING=1\nSTATUS=draining");
}

TEST_CASE("a reload is told with its outcome, but not before READY=1") {
  Told told;
  const auto notifier = told.Notifier(std::chrono::hours(1));
  notifier->Listening("serving", milliseconds(0));
  notifier->BeginReload();
  notifier->EndReload("reloaded");
  CHECK(told.Last() == "STATUS=reloaded");
  CHECK(told.Count("RELOADING=1") + told.Count("READY=1") == 0);
  notifier->SetReady(true);
  notifier->BeginReload();
  CHECK_THAT(told.Last(), Catch::StartsWith("RELOADING=1\nMONOTONIC_USEC="));
  notifier->EndReload("nothing is changed: bad.yaml:1\nbad.yaml:2");
  CHECK(told.Last() == "READY=1\nSTATUS=nothing is changed: bad.yaml:1");
}

TEST_CASE("loading asks for more time while it makes progress") {
  Told told;
  const std::string extension = "EXTEND_TIMEOUT_USEC=30000000";
  const auto notifier = told.Notifier(milliseconds(1));
  CHECK(testing::Eventually([&] { return told.Count(extension) == 1; }));
  // Each step of progress is worth one request more, and standing still none.
  for (int i = 2; i < 5; ++i) {
    ++told.progress;
    CHECK(testing::Eventually([&] { return told.Count(extension) == i; }));
  }
  notifier->Listening("serving", milliseconds(0));
  const size_t messages = told.Messages().size();
  ++told.progress;
  notifier->Loading("end of the test");
  CHECK(told.Messages().size() == messages + 1);
}

}  // namespace
}  // namespace mnemo::frontend
