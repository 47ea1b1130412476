#include "kernels/linear_bf16/contract.h"

#if defined(__x86_64__)
#include "kernels/linear_rows_avx512.h"

namespace nf::kernels {
namespace {

const char* target() { return "avx512"; }

// A bfloat16 is the upper half of a float32: the second of a pair counts once the first is cleared, the first once it is moved up.
inline __m512 second_of(__m512i pairs) { return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(-65536))); }
inline __m512 first_of(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }

struct Product {
  using Input = uint16_t;
  using Weight = uint16_t;
  static constexpr size_t kStep = 2;
  struct Row {
    __m512 first, second;
  };
  static inline Row row(const uint16_t* input) {
    int pair;
    __builtin_memcpy(&pair, input, sizeof(pair));
    const __m512i all = _mm512_set1_epi32(pair);
    return {first_of(all), second_of(all)};
  }
  static inline __m512i add(__m512i sums, const Row& row, __m512i panel) {
    const __m512 with_first = _mm512_fmadd_ps(row.first, first_of(panel), _mm512_castsi512_ps(sums));
    return _mm512_castps_si512(_mm512_fmadd_ps(row.second, second_of(panel), with_first));
  }
};

template <LinearOut kOut>
void run_as(const LinearBf16Job& job) {
  const Gelu gelu;
  all_tiles<Product>(job.input, job.input_stride, job.rows, job.weights, job.depth, job.panels, [&](__m512i sums, size_t row, size_t column) {
    put<kOut>(_mm512_add_ps(_mm512_castsi512_ps(sums), _mm512_loadu_ps(job.bias + column)), gelu, job.out, row * job.out_stride + column);
  });
}

void run(const LinearBf16Job* job, LinearOut out) {
  with_out(out, [&](auto kind) { run_as<decltype(kind)::value>(*job); });
}

}  // namespace

const LinearBf16 linear_bf16_avx512 = {run, target};

}  // namespace nf::kernels

#endif
