#include "kernels/l2sqr_f32/contract.h"

namespace nf::kernels {
namespace {

const char* target() { return "scalar"; }

// Eight independent lanes, which any compiler turns into baseline vector code without reordering a sum.
constexpr size_t kLanes = 8;

float one(const float* q, const float* r, size_t dim) {
  float lane[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= dim; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) {
      const float gap = q[i + j] - r[i + j];
      lane[j] += gap * gap;
    }
  }
  for (size_t j = 0; i + j < dim; ++j) {
    const float gap = q[i + j] - r[i + j];
      lane[j] += gap * gap;
  }
  return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7]));
}

void gather(const float* q, const float* const* rows, size_t n, size_t dim, float* out) {
  for (size_t i = 0; i < n; ++i) out[i] = one(q, rows[i], dim);
}

void block(const float* q, size_t q_stride, size_t nq, const float* r, size_t r_stride, size_t nr, size_t dim, float* out,
           size_t out_stride) {
  for (size_t j = 0; j < nr; ++j) {
    for (size_t i = 0; i < nq; ++i) out[i * out_stride + j] = one(q + i * q_stride, r + j * r_stride, dim);
  }
}

}  // namespace

const L2SqrF32 l2sqr_f32_scalar = {one, gather, block, target};

}  // namespace nf::kernels
