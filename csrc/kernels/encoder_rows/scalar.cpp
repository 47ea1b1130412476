#include "kernels/encoder_rows/contract.h"

#include <math.h>

#include "kernels/encoder_math.h"

namespace nf::kernels {
namespace {

const char* target() { return "scalar"; }

inline float size_of(float value) { return value < 0.0f ? -value : value; }

// `value(j)` for each column to 128 + code; returns the scale.
template <typename Read>
float symmetric(const Read& value, size_t columns, size_t padded, uint8_t* codes) {
  float peak = 0.0f;
  for (size_t j = 0; j < columns; ++j) peak = size_of(value(j)) > peak ? size_of(value(j)) : peak;
  if (!(peak > kLeastPeak)) peak = 0.0f;
  const float inverse = peak > 0.0f ? 127.0f / peak : 0.0f;
  for (size_t j = 0; j < columns; ++j) codes[j] = static_cast<uint8_t>(kZeroCode + static_cast<int>(nearest(value(j) * inverse)));
  for (size_t j = columns; j < padded; ++j) codes[j] = kZeroCode;
  return peak / 127.0f;
}

void norm_row(const NormJob& job, size_t row) {
  float* const x = job.x + row * job.x_stride;
  const float* const add = job.add + row * job.add_stride;
  const float count = static_cast<float>(job.width);
  float sum = 0.0f, square = 0.0f;
  for (size_t j = 0; j < job.width; ++j) sum += x[j] += add[j];
  const float mean = sum / count;
  for (size_t j = 0; j < job.width; ++j) square += (x[j] - mean) * (x[j] - mean);
  const float inverse = 1.0f / sqrtf(square / count + job.eps);
  for (size_t j = 0; j < job.width; ++j) x[j] = (x[j] - mean) * inverse * job.gamma[j] + job.beta[j];
  for (size_t j = job.width; j < job.padded; ++j) x[j] = 0.0f;
  const RowCodes& out = job.out;
  if (out.codes != nullptr) {
    out.scale[row] = symmetric([&](size_t j) { return out.factor != nullptr ? x[j] * out.factor[j] : x[j]; }, job.width, job.padded, out.codes + row * out.stride);
  }
  if (out.halves != nullptr) {
    for (size_t j = 0; j < job.padded; ++j) out.halves[row * out.stride + j] = half_of(x[j]);
  }
}

void norm(const NormJob* job) {
  for (size_t row = 0; row < job->rows; ++row) norm_row(*job, row);
}

void quantize(const QuantizeJob* job) {
  for (size_t row = 0; row < job->rows; ++row) {
    const uint16_t* const halves = job->input + row * job->input_stride;
    job->scale[row] = symmetric([&](size_t j) { return of_half(halves[j]); }, job->padded, job->padded, job->codes + row * job->codes_stride);
  }
}

void quantize_gelu(const QuantizeJob* job) {
  for (size_t row = 0; row < job->rows; ++row) {
    const uint16_t* const halves = job->input + row * job->input_stride;
    uint8_t* const codes = job->codes + row * job->codes_stride;
    float most = 0.0f;
    for (size_t j = 0; j < job->padded; ++j) most = of_half(halves[j]) > most ? of_half(halves[j]) : most;
    const float inverse = 255.0f / (most - kGeluLow);
    for (size_t j = 0; j < job->padded; ++j) codes[j] = static_cast<uint8_t>(nearest((of_half(halves[j]) - kGeluLow) * inverse));
    job->scale[row] = (most - kGeluLow) / 255.0f;
  }
}

}  // namespace

const EncoderRows encoder_rows_scalar = {norm, quantize, quantize_gelu, target};

}  // namespace nf::kernels
