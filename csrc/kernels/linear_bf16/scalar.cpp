#include "kernels/linear_bf16/contract.h"

#include "kernels/encoder_math.h"

namespace nf::kernels {
namespace {

const char* target() { return "scalar"; }

// The sums of one row with the sixteen columns of a panel.
void products(const uint16_t* row, const uint16_t* panel, size_t depth, float* sums) {
  for (size_t j = 0; j < kPanelColumns; ++j) sums[j] = 0.0f;
  for (size_t k = 0; k < depth; k += 2) {
    const uint16_t* const pairs = panel + k * kPanelColumns;
    const float first = of_half(row[k]), second = of_half(row[k + 1]);
    for (size_t j = 0; j < kPanelColumns; ++j) sums[j] += first * of_half(pairs[2 * j]) + second * of_half(pairs[2 * j + 1]);
  }
}

void run(const LinearBf16Job* job, LinearOut out) {
  const bool gelu = out == LinearOut::gelu_f32 || out == LinearOut::gelu_bf16, halves = out == LinearOut::bf16 || out == LinearOut::gelu_bf16;
  float sums[kPanelColumns];
  for (size_t row = 0; row < job->rows; ++row) {
    for (size_t p = 0; p < job->panels; ++p) {
      products(job->input + row * job->input_stride, job->weights + p * job->depth * kPanelColumns, job->depth, sums);
      for (size_t j = 0; j < kPanelColumns; ++j) {
        const size_t column = p * kPanelColumns + j, place = row * job->out_stride + column;
        float y = sums[j] + job->bias[column];
        if (gelu) y = gelu_of(y);
        if (halves) {
          static_cast<uint16_t*>(job->out)[place] = half_of(y);
        } else {
          static_cast<float*>(job->out)[place] = y;
        }
      }
    }
  }
}

}  // namespace

const LinearBf16 linear_bf16_scalar = {run, target};

}  // namespace nf::kernels
