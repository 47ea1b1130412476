// dot_i8: inner products of signed 8-bit codes.
//
// Accumulator: int32, exact for every value from -127 to 127 while dim <= 131,071 (2^17 - 1 products of at most 2^14 stay below 2^31);
// callers refuse larger dim. All targets give the same integer. A value of -128 gives a wrong sum and nothing worse: AVX2 has no
// instruction that takes it as fast. dim = 0 gives 0. No alignment is required of any pointer.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace nf::kernels {

constexpr size_t kDotI8MaxDim = 131071;

struct DotI8 {
  int32_t (*pair)(const int8_t* q, const int8_t* r, size_t dim);
  void (*gather)(const int8_t* q, const int8_t* const* rows, size_t n, size_t dim, int32_t* out);
  void (*block)(const int8_t* q, size_t q_stride, size_t nq, const int8_t* r, size_t r_stride, size_t nr, size_t dim, int32_t* out,
                size_t out_stride);
  const char* (*target)();
};

extern const DotI8 dot_i8_scalar;
#if defined(__x86_64__)
extern const DotI8 dot_i8_avx2;
extern const DotI8 dot_i8_avx512;
extern const DotI8 dot_i8_avx512vnni;
#endif

}  // namespace nf::kernels
