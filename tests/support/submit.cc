#include "tests/support/submit.h"

namespace mnemo::testing {

internal::v1::Submit MakeSubmit(uint64_t id, int max_tokens) {
  internal::v1::Submit submit;
  submit.set_id(id);
  for (int i = 0; i < 20; ++i) submit.add_prompt(i + 60);
  submit.set_max_tokens(max_tokens);
  submit.mutable_sampling()->set_temperature(0.8f);
  submit.mutable_sampling()->set_top_p(1.0f);
  submit.mutable_sampling()->set_repetition_penalty(1.0f);
  submit.mutable_sampling()->set_seed(5);
  submit.set_logprobs(-1);
  submit.set_prompt_logprobs(-1);
  return submit;
}

}  // namespace mnemo::testing
