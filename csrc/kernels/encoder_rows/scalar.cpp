#include "kernels/encoder_rows/contract.h"

#include <math.h>

#include "kernels/encoder_math.h"

namespace nf::kernels {
namespace {

const char* target() { return "scalar"; }

struct Steps {
  float scale, low;
};

// `value(j)` for each column to codes from `low` on.
template <typename Read>
Steps put_codes(const Read& value, size_t columns, float low, float high, uint8_t* codes) {
  const float span = high - low;
  const bool flat = !(span > kLeastSpan);
  const float inverse = flat ? 0.0f : 255.0f / span;
  for (size_t j = 0; j < columns; ++j) codes[j] = static_cast<uint8_t>(nearest((value(j) - low) * inverse));
  return {flat ? 0.0f : span / 255.0f, low};
}

template <typename Read>
Steps put_codes(const Read& value, size_t columns, uint8_t* codes) {
  float low = value(0), high = low;
  for (size_t j = 1; j < columns; ++j) {
    if (value(j) < low) low = value(j);
    if (value(j) > high) high = value(j);
  }
  return put_codes(value, columns, low, high, codes);
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
    const auto value = [&](size_t j) { return out.factor != nullptr ? x[j] * out.factor[j] : x[j]; };
    const Steps steps = put_codes(value, job.width, out.codes + row * out.stride);
    for (size_t j = job.width; j < job.padded; ++j) out.codes[row * out.stride + j] = 0;
    out.scale[row] = steps.scale;
    out.low[row] = steps.low;
  }
  if (out.halves != nullptr) {
    for (size_t j = 0; j < job.padded; ++j) out.halves[row * out.stride + j] = half_of(x[j]);
  }
}

void norm(const NormJob* job) {
  for (size_t row = 0; row < job->rows; ++row) norm_row(*job, row);
}

template <bool kFromGeluLow>
void quantize_rows(const QuantizeJob* job) {
  for (size_t row = 0; row < job->rows; ++row) {
    const uint16_t* const halves = job->input + row * job->input_stride;
    uint8_t* const codes = job->codes + row * job->codes_stride;
    const auto value = [&](size_t j) { return of_half(halves[j]); };
    float high = 0.0f;
    for (size_t j = 0; j < job->padded; ++j) high = value(j) > high ? value(j) : high;
    const Steps steps = kFromGeluLow ? put_codes(value, job->padded, kGeluLow, high, codes) : put_codes(value, job->padded, codes);
    job->scale[row] = steps.scale;
    job->low[row] = steps.low;
  }
}

}  // namespace

const EncoderRows encoder_rows_scalar = {norm, quantize_rows<false>, quantize_rows<true>, nullptr, target};

}  // namespace nf::kernels
