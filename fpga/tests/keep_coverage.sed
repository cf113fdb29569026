# Lets the destructor of a Verilated model hand its coverage over, to verilated_coverage.cc.
1i class VerilatedContext; void MnemoKeepCoverage(VerilatedContext*);
s/^    delete vlSymsp;/    MnemoKeepCoverage(contextp()); delete vlSymsp;/
