#include "kernels/dot_i8/contract.h"

namespace nf::kernels {
namespace {

const char* target() { return "scalar"; }

int32_t one(const int8_t* q, const int8_t* r, size_t dim) {
  int32_t sum = 0;
  for (size_t i = 0; i < dim; ++i) sum += static_cast<int32_t>(q[i]) * static_cast<int32_t>(r[i]);
  return sum;
}

void gather(const int8_t* q, const int8_t* const* rows, size_t n, size_t dim, int32_t* out) {
  for (size_t i = 0; i < n; ++i) out[i] = one(q, rows[i], dim);
}

void block(const int8_t* q, size_t q_stride, size_t nq, const int8_t* r, size_t r_stride, size_t nr, size_t dim, int32_t* out,
           size_t out_stride) {
  for (size_t j = 0; j < nr; ++j) {
    for (size_t i = 0; i < nq; ++i) out[i * out_stride + j] = one(q + i * q_stride, r + j * r_stride, dim);
  }
}

}  // namespace

const DotI8 dot_i8_scalar = {one, gather, block, target};

}  // namespace nf::kernels
