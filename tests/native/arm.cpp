// Runs the Arm kernels against the scalar ones, and the choice among them. Built and run by test_arm.py.
#include "compare_scans.h"
#include "kernels/dispatch.h"
#include "simd/targets.h"

int main() {
  compare_scans(scan_i8_scalar);
  compare_scans(scan_i8_neon_dotprod);
  const std::string active = nf::simd::info_of(nf::simd::active()).name;
  const std::string measured = nf::kernels::scan_i8().target();
  nf::simd::force("neon_dotprod");
  std::printf("%s %s %s\n", active.c_str(), measured.c_str(), nf::kernels::scan_i8().target());
  return failures == 0 ? 0 : 1;
}
