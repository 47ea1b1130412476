#include "kernels/linear_f32/contract.h"

#include "kernels/encoder_math.h"

namespace nf::kernels {
namespace {

const char* target() { return "scalar"; }

// The sums of one row with the sixteen columns of a panel.
void products(const float* row, const float* panel, size_t depth, float* sums) {
  for (size_t j = 0; j < kPanelColumns; ++j) sums[j] = 0.0f;
  for (size_t k = 0; k < depth; ++k) {
    for (size_t j = 0; j < kPanelColumns; ++j) sums[j] += row[k] * panel[k * kPanelColumns + j];
  }
}

void run(const LinearF32Job* job, LinearOut out) {
  float sums[kPanelColumns];
  for (size_t row = 0; row < job->rows; ++row) {
    for (size_t p = 0; p < job->panels; ++p) {
      products(job->input + row * job->input_stride, job->weights + p * job->depth * kPanelColumns, job->depth, sums);
      for (size_t j = 0; j < kPanelColumns; ++j) {
        const size_t column = p * kPanelColumns + j;
        const float y = sums[j] + job->bias[column];
        job->out[row * job->out_stride + column] = out == LinearOut::gelu_f32 ? gelu_of(y) : y;
      }
    }
  }
}

}  // namespace

const LinearF32 linear_f32_scalar = {run, target};

}  // namespace nf::kernels
