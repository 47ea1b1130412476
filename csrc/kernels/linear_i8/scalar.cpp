#include "kernels/linear_i8/contract.h"

#include "kernels/encoder_math.h"

namespace nf::kernels {
namespace {

const char* target() { return "scalar"; }

// The sums of one row with the sixteen columns of a panel.
void products(const uint8_t* row, const int8_t* panel, size_t depth, int32_t* sums) {
  for (size_t j = 0; j < kPanelColumns; ++j) sums[j] = 0;
  for (size_t k = 0; k < depth; k += 4) {
    const int8_t* const codes = panel + k * kPanelColumns;
    for (size_t j = 0; j < kPanelColumns; ++j) {
      for (size_t i = 0; i < 4; ++i) sums[j] += static_cast<int32_t>(row[k + i]) * codes[4 * j + i];
    }
  }
}

void run(const LinearI8Job* job, LinearOut out) {
  const bool gelu = out == LinearOut::gelu_f32 || out == LinearOut::gelu_bf16, halves = out == LinearOut::bf16 || out == LinearOut::gelu_bf16;
  int32_t sums[kPanelColumns];
  for (size_t row = 0; row < job->rows; ++row) {
    for (size_t p = 0; p < job->panels; ++p) {
      products(job->input + row * job->input_stride, job->weights + p * job->depth * kPanelColumns, job->depth, sums);
      for (size_t j = 0; j < kPanelColumns; ++j) {
        const size_t column = p * kPanelColumns + j, place = row * job->out_stride + column;
        const float scale = job->input_scale[row] * job->column_scale[column];
        float y = static_cast<float>(sums[j]) * scale + (job->input_low[row] * job->column_sum[column] + job->bias[column]);
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

const LinearI8 linear_i8_scalar = {run, nullptr, target};

}  // namespace nf::kernels
