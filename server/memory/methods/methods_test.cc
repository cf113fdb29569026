#include <catch2/catch.hpp>
#include <functional>
#include <set>

#include "server/memory/methods/method.h"

namespace mnemo::memory::methods {
namespace {

using M = AttentionSettings::Method;

AttentionSettings Settings(M method, int budget) {
  return {.method = method,
          .token_budget = budget,
          .keep_first = 4,
          .reuse_interval = 1,
          .first_stage_tokens = 4 * budget,
          .key_bits = 2};
}

TEST_CASE("every method is found by its number and by its name, dense by its name alone") {
  std::set<std::string_view> names;
  for (const Method* method : Methods()) {
    CAPTURE(method->name);
    CHECK(FindMethod(method->id) == method);
    CHECK(MethodNamed(method->name) == method->id);
    CHECK(MethodName(method->id) == method->name);
    names.insert(method->name);
  }
  CHECK(names.size() == Methods().size());
  CHECK(FindMethod(M::kDense) == nullptr);
  CHECK(MethodName(M::kDense) == "dense");
  CHECK(MethodNamed("dense") == M::kDense);
  CHECK(ProtocolName(M::kTokenTopk) == "ATTENTION_METHOD_TOKEN_TOPK");
  CHECK(ProtocolName(M::kDense) == "ATTENTION_METHOD_DENSE");
}

TEST_CASE("what is no method has no name") {
  CHECK(FindMethod(static_cast<M>(99)) == nullptr);
  CHECK(MethodName(static_cast<M>(99)).empty());
  CHECK(ProtocolName(static_cast<M>(99)).empty());
  CHECK_FALSE(MethodNamed("").has_value());
  CHECK_FALSE(MethodNamed("TOKEN_TOPK").has_value());
}

TEST_CASE("names are listed by number, those that need weights apart") {
  using Names = std::vector<std::string_view>;
  CHECK(AllNames() ==
        Names{"dense", "page_bound", "block_gate", "block_mean", "token_indexer", "token_topk", "cascade"});
  CHECK(RunnableNames() == Names{"dense", "page_bound", "block_mean", "token_topk", "cascade"});
  CHECK(NamesWhere([](const Method& method) { return method.selects_pages; }) ==
        Names{"page_bound", "block_mean"});
}

TEST_CASE("names are joined with a word before the last one") {
  CHECK(Joined({}, "or").empty());
  CHECK(Joined({"a"}, "or") == "a");
  CHECK(Joined({"a", "b"}, "and") == "a and b");
  CHECK(Joined({"a", "b", "c"}, "or") == "a, b or c");
}

TEST_CASE("a method either needs weights and names another, or has its steps") {
  for (const Method* method : Methods()) {
    CAPTURE(method->name);
    const bool runs = CheckMethod(method->id).ok();
    CHECK(runs == (method->steps != nullptr));
    CHECK(runs == method->weights.empty());
    if (!runs) CHECK(CheckMethod(*MethodNamed(method->without_weights)).ok());
  }
}

TEST_CASE("traits agree with the steps") {
  for (const Method* method : Methods()) {
    if (method->steps == nullptr) continue;
    CAPTURE(method->name);
    const MethodSteps steps = method->steps(Settings(method->id, 1024), {.entry_tokens = 64});
    CHECK(method->two_stages == (steps.retrieval.first_stage_tokens > 0));
    CHECK(method->selects_pages == (steps.apply.entry_tokens == 64));
    const bool stores_codes = steps.prepare.record_format == layout::kFormatCodes2;
    CHECK(stores_codes == (method->key_bits != KeyBits::kNone));
  }
}

TEST_CASE("settings that cannot work are refused with field and bound") {
  CHECK(CheckSettings(Settings(M::kDense, 0)).ok());
  CHECK(CheckSettings(Settings(M::kTokenTopk, 68)).ok());
  const auto refused = [](M method, const std::function<void(AttentionSettings*)>& change,
                          const std::string& words) {
    AttentionSettings settings = Settings(method, 1024);
    change(&settings);
    const absl::Status status = CheckSettings(settings);
    CAPTURE(status.ToString());
    CHECK(absl::IsInvalidArgument(status));
    CHECK_THAT(std::string(status.message()), Catch::Contains(words));
  };
  refused(
      M::kTokenTopk, [](auto* s) { s->token_budget = 67; },
      "token_budget: 67 is out of range; allowed: [68, 2147483647]");
  refused(
      M::kTokenTopk, [](auto* s) { s->key_bits = 3; }, "key_bits: 3 is out of range; allowed: 2, 4 or 8");
  refused(
      M::kBlockMean, [](auto* s) { s->keep_first = 1025; }, "keep_first: 1025 is out of range");
  refused(
      M::kBlockMean, [](auto* s) { s->keep_last = -1; }, "keep_last: -1 is out of range");
  refused(
      M::kBlockMean, [](auto* s) { s->reuse_interval = 0; },
      "reuse_interval: 0 is out of range; allowed: [1, 64]");
  refused(
      M::kCascade, [](auto* s) { s->first_stage_tokens = 1000; },
      "first_stage_tokens: 1000 is out of range; allowed: [1024, ");
  refused(
      M::kCascade, [](auto* s) { s->key_bits = 4; }, "with ATTENTION_METHOD_CASCADE; allowed: 2");
  refused(
      M::kTokenTopk, [](auto* s) { s->placement = static_cast<AttentionSettings::Placement>(3); },
      "placement: 3 is no known placement");
  refused(
      M::kTokenTopk, [](auto* s) { s->method = static_cast<M>(99); }, "99 is no known method");
  CHECK(absl::IsUnimplemented(CheckSettings(Settings(M::kBlockGate, 1024))));
}

TEST_CASE("an added method is known while it lives") {
  const Method added = {.id = static_cast<M>(99), .name = "added", .steps = kBlockMean.steps};
  {
    const AddedMethod lives(&added);
    CHECK(MethodNamed("added") == added.id);
    CHECK(ProtocolName(added.id) == "ATTENTION_METHOD_ADDED");
    CHECK(RunnableNames().back() == "added");
    CHECK(CheckSettings(Settings(added.id, 1024)).ok());
  }
  CHECK(FindMethod(added.id) == nullptr);
}

}  // namespace
}  // namespace mnemo::memory::methods
