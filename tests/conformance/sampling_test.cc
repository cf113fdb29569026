// Sampling is one function shared by devices on the CPU; a device of another kind must give the same tokens.
#include <cmath>
#include <limits>

#include "devices/sample_row.h"
#include "tests/conformance/bench.h"

namespace mnemo::conformance {
namespace {

using namespace devices;  // NOLINT: the suite is about this namespace

TEST_CASE("every device draws the same tokens from the same logits") {
  EachBench([](Bench& bench) {
    Random random(71);
    for (int vocabulary : {1, 259, 5000}) {
      constexpr int kRows = 24;
      std::vector<float> logits = Normal(&random, static_cast<size_t>(kRows * vocabulary), 3.0f);
      for (size_t i = 0; i < logits.size(); i += 97) logits[i] = std::numeric_limits<float>::quiet_NaN();
      for (size_t i = 0; i < logits.size(); i += 101) logits[i] = 2.5f;  // ties
      const Array array(bench.device.get(), logits);
      std::vector<SamplingParams> params(kRows);
      std::vector<std::vector<TokenCount>> counts(kRows);
      std::vector<std::vector<TokenBias>> bias(kRows);
      std::vector<SampleRow> rows(kRows), host_rows(kRows);
      for (size_t r = 0; r < kRows; ++r) {
        SamplingParams& p = params[r];
        p.seed = random();
        p.temperature = r % 4 == 0 ? 0.0f : 0.3f * static_cast<float>(r % 5);
        p.top_k = r % 3 == 0 ? 40 : 0;
        p.top_p = r % 2 == 0 ? 0.9f : 1.0f;
        p.min_p = r % 5 == 0 ? 0.05f : 0.0f;
        if (r % 3 == 1) {
          p.repetition_penalty = 1.2f;
          p.frequency_penalty = 0.1f;
          counts[r] = {{0, 2}, {vocabulary - 1, vocabulary > 1 ? 0 : 1}};
          if (vocabulary == 1) counts[r].pop_back();
          bias[r] = {{vocabulary / 2, 1.5f}};
        }
        rows[r].params = &p;
        rows[r].counts = counts[r];
        rows[r].bias = bias[r];
        rows[r].index = r;
        rows[r].forced_id = r == 7 ? vocabulary - 1 : -1;
        rows[r].alternatives = static_cast<int32_t>(r % 4) * 7 - 1;
        host_rows[r] = rows[r];
        rows[r].logits = array.data() + r * static_cast<size_t>(vocabulary);
        host_rows[r].logits = logits.data() + r * static_cast<size_t>(vocabulary);
      }
      std::vector<SampleResult> results(kRows);
      bench.device->Sample(rows, vocabulary, results);
      SampleScratch scratch;
      for (size_t r = 0; r < kRows; ++r) {
        const SampleResult wanted = SampleOneRow(host_rows[r], vocabulary, &scratch);
        INFO("vocabulary " << vocabulary << " row " << r);
        REQUIRE(results[r].id == wanted.id);
        REQUIRE(results[r].rank == wanted.rank);
        REQUIRE(SameBits(&results[r].logprob, &wanted.logprob, 1));
        REQUIRE(results[r].alternative_count == wanted.alternative_count);
        REQUIRE(results[r].alternative_ids == wanted.alternative_ids);
        REQUIRE(SameBits(results[r].alternative_logprobs.data(), wanted.alternative_logprobs.data(),
                         kMaxAlternatives));
      }
    }
  });
}

}  // namespace
}  // namespace mnemo::conformance
