// GELU and its codes in float16, 32 values in a register; everything else is AVX-512's.
#include "kernels/encoder_rows/contract.h"

#if defined(__x86_64__) && !defined(NF_WITHOUT_AVX512FP16)
#include <immintrin.h>

namespace nf::kernels {
namespace {

const char* target() { return "avx512fp16"; }

// gelu(x) = max(x, 0) - g(|x|), g(t) = t Phi(-t): a hill of height 0.17 that ends near 5. g on pieces around the multiples i of kPiece, 0 <= i <= 31,
// by quadratics in the distance: row k holds the coefficients of degree k as float16. Off by at most 1e-4, float16's roundings included, and 2^-11 |x|.
constexpr float kPiece = 0.15625f;
alignas(64) constexpr uint16_t kHill[3][32] = {
    {0x8012, 0x2C61, 0x2F8C, 0x30CB, 0x3152, 0x316F, 0x313A, 0x30CC, 0x303A, 0x2F2F, 0x2DE9, 0x2CB6, 0x2B4C, 0x297D, 0x2805, 0x25BA,
     0x23F3, 0x215F, 0x1F14, 0x1C8C, 0x19B1, 0x16F2, 0x1422, 0x10CC, 0x0D6F, 0x0A00, 0x0676, 0x0365, 0x01BE, 0x00DF, 0x006D, 0x0034},
    {0x3800, 0x3606, 0x3425, 0x30E2, 0x2BDE, 0xA208, 0xAC3C, 0xAE8D, 0xAFD3, 0xB01D, 0xAFF9, 0xAF45, 0xAE4E, 0xAD3D, 0xAC30, 0xAA77,
     0xA8D3, 0xA6F9, 0xA4E4, 0xA2A8, 0xA067, 0x9DA9, 0x9B13, 0x984E, 0x9518, 0x91E0, 0x8E98, 0x8B35, 0x87AD, 0x83FB, 0x8203, 0x80FE},
    {0xB65F, 0xB639, 0xB5C7, 0xB516, 0xB439, 0xB289, 0xB09D, 0xADA7, 0xA924, 0x97BE, 0x2698, 0x298A, 0x2AA7, 0x2AE2, 0x2A7E, 0x29B8,
     0x28C4, 0x2796, 0x25CA, 0x2440, 0x2205, 0x201F, 0x1D77, 0x1B05, 0x1860, 0x154A, 0x1237, 0x0F18, 0x0BDF, 0x083F, 0x0475, 0x0249},
};
constexpr float kMost = 65504.0f;

inline __m512h all_of(float value) { return _mm512_set1_ph(static_cast<_Float16>(value)); }

struct Hill {
  __m512h degree[3];

  Hill() {
    for (int k = 0; k < 3; ++k) degree[k] = _mm512_load_ph(kHill[k]);
  }

  inline __m512h gelu(__m512h x) const {
    const __m512h magic = all_of(1024.0f);  // adding it leaves the nearest whole number in the low bits
    const __m512h t = _mm512_min_ph(_mm512_abs_ph(x), all_of(31.49f * kPiece));
    const __m512h shifted = _mm512_fmadd_ph(t, all_of(1.0f / kPiece), magic);
    const __m512h d = _mm512_fnmadd_ph(_mm512_sub_ph(shifted, magic), all_of(kPiece), t);
    const __m512i piece = _mm512_castph_si512(shifted);  // the permutation reads the five lowest bits
    __m512h p = _mm512_permutexvar_ph(piece, degree[2]);
    p = _mm512_fmadd_ph(p, d, _mm512_permutexvar_ph(piece, degree[1]));
    p = _mm512_fmadd_ph(p, d, _mm512_permutexvar_ph(piece, degree[0]));
    return _mm512_sub_ph(_mm512_max_ph(x, _mm512_setzero_ph()), p);
  }
};

inline float largest(const uint16_t* x, size_t padded) {
  __m512h a = _mm512_setzero_ph(), b = a;
  for (size_t j = 0; j < padded; j += 64) {
    a = _mm512_max_ph(a, _mm512_loadu_ph(x + j));
    b = _mm512_max_ph(b, _mm512_loadu_ph(x + j + 32));
  }
  return static_cast<float>(_mm512_reduce_max_ph(_mm512_max_ph(a, b)));
}

void gelu_codes(const QuantizeJob* job) {
  const Hill hill;
  const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), greatest = _mm512_set1_epi16(255);
  for (size_t row = 0; row < job->rows; ++row) {
    const uint16_t* const x = job->input + row * job->input_stride;
    uint8_t* const codes = job->codes + row * job->codes_stride;
    // gelu(x) <= max(x, 0), so the codes of what is greatest stay within 255 and a rounding.
    const float most = largest(x, job->padded), high = most < kMost ? most : kMost;
    const _Float16 factor = static_cast<_Float16>(255.0f / (high - kGeluLow));
    const __m512h inverse = _mm512_set1_ph(factor), offset = all_of(-kGeluLow * static_cast<float>(factor));
    const auto code = [&](size_t j) {
      const __m512h value = hill.gelu(_mm512_loadu_ph(x + j));
      return _mm512_min_epu16(_mm512_cvtph_epu16(_mm512_fmadd_ph(value, inverse, offset)), greatest);
    };
    for (size_t j = 0; j < job->padded; j += 64) {
      _mm512_storeu_si512(codes + j, _mm512_permutexvar_epi64(order, _mm512_packus_epi16(code(j), code(j + 32))));
    }
    job->scale[row] = 1.0f / static_cast<float>(factor);
    job->low[row] = kGeluLow;
  }
}

void norm(const NormJob* job) { encoder_rows_avx512.norm(job); }
void quantize(const QuantizeJob* job) { encoder_rows_avx512.quantize(job); }
void quantize_gelu(const QuantizeJob* job) { encoder_rows_avx512.quantize_gelu(job); }

}  // namespace

const EncoderRows encoder_rows_avx512fp16 = {norm, quantize, quantize_gelu, gelu_codes, target};

}  // namespace nf::kernels

#endif
