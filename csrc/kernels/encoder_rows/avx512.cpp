#include "kernels/encoder_rows/contract.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace nf::kernels {
namespace {

const char* target() { return "avx512"; }

inline __m512 widened(const uint16_t* halves) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(halves))), 16));
}

inline void put_halves(__m512 value, uint16_t* out) {
  const __m512i bits = _mm512_castps_si512(value);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
}

// 64 values, less `low` and times `inverse`, to whole numbers as bytes.
template <typename Read>
inline void put_64(const Read& value, __m512 low, __m512 inverse, uint8_t* out) {
  const auto code = [&](size_t j) { return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_sub_ps(value(j), low), inverse)); };
  // Packing works within lanes of 16 bytes; the permutation puts their four-byte groups in order.
  const __m512i first = _mm512_packus_epi32(code(0), code(16)), second = _mm512_packus_epi32(code(32), code(48));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm512_storeu_si512(out, _mm512_permutexvar_epi32(order, _mm512_packus_epi16(first, second)));
}

// A row's codes, given its least and greatest value.
template <typename Read>
inline void put_codes(const Read& value, size_t padded, float low, float high, uint8_t* codes, float* scale, float* low_out) {
  const float span = high - low;
  const bool flat = !(span > kLeastSpan);
  const __m512 from = _mm512_set1_ps(low), inverse = _mm512_set1_ps(flat ? 0.0f : 255.0f / span);
  for (size_t j = 0; j < padded; j += 64) put_64([&](size_t i) { return value(j + i); }, from, inverse, codes + j);
  *scale = flat ? 0.0f : span / 255.0f;
  *low_out = low;
}

// Sums in four chains, joined in pairs.
inline float total(const __m512* four) { return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(four[0], four[1]), _mm512_add_ps(four[2], four[3]))); }

float sum_and_store(float* x, const float* add, size_t padded) {
  __m512 sums[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
  for (size_t j = 0; j < padded; j += 64) {
    for (size_t c = 0; c < 4; ++c) {
      const __m512 value = _mm512_add_ps(_mm512_loadu_ps(x + j + 16 * c), _mm512_loadu_ps(add + j + 16 * c));
      _mm512_storeu_ps(x + j + 16 * c, value);
      sums[c] = _mm512_add_ps(sums[c], value);
    }
  }
  return total(sums);
}

float sum_of_squares(const float* x, size_t width, float mean) {
  __m512 sums[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
  const __m512 middle = _mm512_set1_ps(mean);
  size_t j = 0;
  for (; j + 64 <= width; j += 64) {
    for (size_t c = 0; c < 4; ++c) {
      const __m512 away = _mm512_sub_ps(_mm512_loadu_ps(x + j + 16 * c), middle);
      sums[c] = _mm512_fmadd_ps(away, away, sums[c]);
    }
  }
  for (; j < width; j += 16) {
    const auto some = static_cast<__mmask16>(width - j >= 16 ? 0xFFFFu : (1u << (width - j)) - 1u);
    const __m512 away = _mm512_maskz_sub_ps(some, _mm512_maskz_loadu_ps(some, x + j), middle);
    sums[0] = _mm512_fmadd_ps(away, away, sums[0]);
  }
  return total(sums);
}

// Four rows together: what depends on a whole row (mean, deviation, least and greatest value) waits for some 50 cycles, in which the others go on.
constexpr size_t kTogether = 4;

template <bool kCodes, bool kFactor, bool kHalves>
void norm_rows(const NormJob& job, size_t first, size_t rows) {
  const float count = static_cast<float>(job.width);
  const auto last = static_cast<__mmask16>((1u << job.width % 16) - 1u);  // of the last, incomplete sixteen columns
  const auto coded = [&](size_t j, __m512 value) { return kFactor ? _mm512_mul_ps(value, _mm512_loadu_ps(job.out.factor + j)) : value; };
  float mean[kTogether], inverse[kTogether], low[kTogether], high[kTogether];
  const auto x_of = [&](size_t i) { return job.x + (first + i) * job.x_stride; };
  for (size_t i = 0; i < rows; ++i) mean[i] = sum_and_store(x_of(i), job.add + (first + i) * job.add_stride, job.padded) / count;
  for (size_t i = 0; i < rows; ++i) inverse[i] = 1.0f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(sum_of_squares(x_of(i), job.width, mean[i]) / count + job.eps)));
  for (size_t i = 0; i < rows; ++i) {
    float* const x = x_of(i);
    // The rows of the next four are asked for here, where arithmetic is long: x comes from the second-level cache.
    const size_t row = first + i + kTogether < job.rows ? first + i + kTogether : first + i;
    const float *const later = job.x + row * job.x_stride, *const later_add = job.add + row * job.add_stride;
    const __m512 middle = _mm512_set1_ps(mean[i]), factor = _mm512_set1_ps(inverse[i]);
    __m512 least = _mm512_set1_ps(3e38f), most = _mm512_set1_ps(-3e38f);
    for (size_t j = 0; j < job.padded; j += 16) {
      __builtin_prefetch(later + j);
      __builtin_prefetch(later_add + j);
      // gamma and beta are zero behind the row's own columns.
      const __m512 value = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(x + j), middle), factor), _mm512_loadu_ps(job.gamma + j), _mm512_loadu_ps(job.beta + j));
      _mm512_storeu_ps(x + j, value);
      if constexpr (kCodes) {
        const __mmask16 own = j + 16 <= job.width ? 0xFFFF : j < job.width ? last : 0;
        least = _mm512_mask_min_ps(least, own, least, coded(j, value));
        most = _mm512_mask_max_ps(most, own, most, coded(j, value));
      }
      if constexpr (kHalves) put_halves(value, job.out.halves + (first + i) * job.out.stride + j);
    }
    if constexpr (kCodes) {
      low[i] = _mm512_reduce_min_ps(least);
      high[i] = _mm512_reduce_max_ps(most);
    }
  }
  for (size_t i = 0; kCodes && i < rows; ++i) {
    put_codes([&](size_t j) { return coded(j, _mm512_loadu_ps(x_of(i) + j)); }, job.padded, low[i], high[i], job.out.codes + (first + i) * job.out.stride,
              job.out.scale + first + i, job.out.low + first + i);
  }
}

void norm(const NormJob* job) {
  const auto form = job->out.codes != nullptr    ? job->out.factor != nullptr ? norm_rows<true, true, false> : norm_rows<true, false, false>
                    : job->out.halves != nullptr ? norm_rows<false, false, true>
                                                 : norm_rows<false, false, false>;
  for (size_t row = 0; row < job->rows; row += kTogether) form(*job, row, job->rows - row < kTogether ? job->rows - row : kTogether);
}

void quantize(const QuantizeJob* job) {
  for (size_t row = 0; row < job->rows; ++row) {
    const uint16_t* const input = job->input + row * job->input_stride;
    __m512 low = widened(input), high = low;
    for (size_t j = 16; j < job->padded; j += 16) {
      low = _mm512_min_ps(low, widened(input + j));
      high = _mm512_max_ps(high, widened(input + j));
    }
    put_codes([&](size_t j) { return widened(input + j); }, job->padded, _mm512_reduce_min_ps(low), _mm512_reduce_max_ps(high), job->codes + row * job->codes_stride,
              job->scale + row, job->low + row);
  }
}

void quantize_gelu(const QuantizeJob* job) {
  for (size_t row = 0; row < job->rows; ++row) {
    const uint16_t* const input = job->input + row * job->input_stride;
    // bfloat16 values above zero are ordered as 16-bit integers are, and negative ones lie below them.
    __m512i most[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    for (size_t j = 0; j < job->padded; j += 64) {
      most[0] = _mm512_max_epi16(most[0], _mm512_loadu_si512(input + j));
      most[1] = _mm512_max_epi16(most[1], _mm512_loadu_si512(input + j + 32));
    }
    const __m512i halves = _mm512_max_epi16(most[0], most[1]);
    const __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(halves, 16)), odd = _mm512_castsi512_ps(_mm512_and_si512(halves, _mm512_set1_epi32(-65536)));
    put_codes([&](size_t j) { return widened(input + j); }, job->padded, kGeluLow, _mm512_reduce_max_ps(_mm512_max_ps(even, odd)), job->codes + row * job->codes_stride,
              job->scale + row, job->low + row);
  }
}

}  // namespace

const EncoderRows encoder_rows_avx512 = {norm, quantize, quantize_gelu, nullptr, target};

}  // namespace nf::kernels

#endif
