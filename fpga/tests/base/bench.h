#pragma once

// The bench of fpga/rtl/base, one clock at a time.

#include <cstdint>
#include <memory>

#include "Vbase_bench.h"
#include "verilated.h"

namespace mnemo::rtl_base {

class Bench {
 public:
  explicit Bench(int seed) {
    context_.threads(1);
    context_.randReset(2);
    context_.randSeed(seed);
    context_.errorLimit(1 << 30);  // a failed assertion is counted and does not stop the program
    top_ = std::make_unique<Vbase_bench>(&context_);
    for (int i = 0; i < 3; ++i) Clock();  // checks are not armed yet
    Reset();
  }
  ~Bench() {
    Verilated::threadContextp(&context_);  // scopes leave the thread's context, which may be another's
    top_->final();
  }

  Vbase_bench& pins() { return *top_; }
  int failures() const { return context_.errorCount(); }

  // Inputs as they are now, then the values that the registers take.
  void Settle() { top_->eval(); }
  void Clock() {
    top_->clk = 0;
    top_->eval();
    top_->clk = 1;
    top_->eval();
  }

  void Reset() {
    Vbase_bench& p = *top_;
    p.in_valid = p.out_ready = p.we = p.re = p.want = p.take = p.event_valid = 0;
    p.s_valid = p.s_ready = p.a_valid = p.a_ready = p.d_valid = p.d_ready = p.d_last = 0;
    p.w_a_valid = p.w_d_valid = p.w_b_valid = 0;
    p.rst = 1;
    Clock();
    Clock();
    p.rst = 0;
  }

 private:
  VerilatedContext context_;
  std::unique_ptr<Vbase_bench> top_;
};

}  // namespace mnemo::rtl_base
