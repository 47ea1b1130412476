#include "kernels/attention/contract.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace nf::kernels {
namespace {

const char* target() { return "avx512"; }

// Head by head: keys as float32 with tokens side by side, values as float32 row by row; then eight tokens at a time by 32 keys or dimensions, so that
// ten loads feed sixteen products.
constexpr size_t kLanes = 16, kRows = 8, kWide = 2 * kLanes;

inline size_t whole(size_t count) { return (count + kWide - 1) / kWide * kWide; }
// Of sixteen columns from `from` on, those before `end`.
inline __mmask16 lanes(size_t from, size_t end) {
  return static_cast<__mmask16>(from >= end ? 0u : end - from >= kLanes ? 0xFFFFu : (1u << (end - from)) - 1u);
}

inline float widened(float value) { return value; }
inline float widened(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

inline __m512 load(const float* values, __mmask16 some) { return _mm512_maskz_loadu_ps(some, values); }
inline __m512 load(const uint16_t* halves, __mmask16 some) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, halves)), 16));
}

inline void store(__m512 value, __mmask16 some, float* out) { _mm512_mask_storeu_ps(out, some, value); }
inline void store(__m512 value, __mmask16 some, uint16_t* out) {
  const __m512i bits = _mm512_castps_si512(value), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  _mm256_mask_storeu_epi16(out, some, _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
}

// 2^x for x <= 0: the series of e^(r ln 2) to r^7, |r| <= 1/2, times 2^n; off by at most 2^-21 relatively. Below -100 it stays 2^-100.
inline __m512 exp2_of(__m512 x) {
  const __m512 t = _mm512_max_ps(x, _mm512_set1_ps(-100.0f));
  const __m512 n = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT), r = _mm512_sub_ps(t, n);
  __m512 p = _mm512_set1_ps(1.5252734e-5f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.5403530e-4f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3333558e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.6181291e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.5504109e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.4022651e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.9314718e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
}

struct Room {
  size_t keys, dims;  // tokens and head_dim in whole pairs of registers
  float *key, *value, *query, *score;

  Room(size_t tokens, size_t head_dim, void* scratch) : keys(whole(tokens)), dims(whole(head_dim)) {
    key = static_cast<float*>(scratch);
    value = key + head_dim * keys;
    query = value + keys * dims;
    score = query + kRows * dims;
  }
  size_t values(size_t head_dim) const { return head_dim * keys + keys * dims + kRows * dims + kRows * keys; }
};

size_t scratch_bytes(size_t tokens, size_t head_dim) { return Room(tokens, head_dim, nullptr).values(head_dim) * sizeof(float); }

template <typename Value>
void place(const AttentionJob<Value>& job, size_t at, const Room& room) {
  for (size_t j = 0; j < room.keys; ++j) {
    const bool real = j < job.tokens;
    const Value* const row = job.qkv + (real ? j : 0) * job.stride + at;
    for (size_t d = 0; d < job.head_dim; ++d) room.key[d * room.keys + j] = real ? widened(row[job.keys + d]) : 0.0f;
    for (size_t d = 0; d < room.dims; d += kLanes) {
      _mm512_storeu_ps(room.value + j * room.dims + d, load(row + job.values + d, real ? lanes(d, job.head_dim) : static_cast<__mmask16>(0)));
    }
  }
}

// Sums of eight rows by 32 columns: of `left` (eight rows of `count` values, `stride` apart) with `right` (`count` rows, `columns` apart).
inline void products(const float* left, size_t stride, const float* right, size_t columns, size_t count, __m512 (*sums)[2]) {
  for (size_t i = 0; i < kRows; ++i) sums[i][0] = sums[i][1] = _mm512_setzero_ps();
  for (size_t k = 0; k < count; ++k) {
    const __m512 first = _mm512_loadu_ps(right + k * columns), second = _mm512_loadu_ps(right + k * columns + kLanes);
#pragma GCC unroll 8
    for (size_t i = 0; i < kRows; ++i) {
      const __m512 value = _mm512_set1_ps(left[i * stride + k]);
      sums[i][0] = _mm512_fmadd_ps(value, first, sums[i][0]);
      sums[i][1] = _mm512_fmadd_ps(value, second, sums[i][1]);
    }
  }
}

// Scores of eight tokens, of which the last may be repeated.
template <typename Value>
void scores(const AttentionJob<Value>& job, const Value* const* rows, const Room& room) {
  for (size_t i = 0; i < kRows; ++i) {
    for (size_t d = 0; d < job.head_dim; ++d) room.query[i * room.dims + d] = widened(rows[i][d]);
  }
  for (size_t j = 0; j < room.keys; j += kWide) {
    __m512 sums[kRows][2];
    products(room.query, room.dims, room.key + j, room.keys, job.head_dim, sums);
    for (size_t i = 0; i < kRows; ++i) {
      _mm512_storeu_ps(room.score + i * room.keys + j, sums[i][0]);
      _mm512_storeu_ps(room.score + i * room.keys + j + kLanes, sums[i][1]);
    }
  }
}

// One row of scores to weights; returns their sum.
float softmax(float* score, size_t tokens, size_t keys) {
  __m512 most = _mm512_set1_ps(-3e38f), sum = _mm512_setzero_ps();
  for (size_t j = 0; j < keys; j += kLanes) most = _mm512_mask_max_ps(most, lanes(j, tokens), most, _mm512_loadu_ps(score + j));
  const __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(most));
  for (size_t j = 0; j < keys; j += kLanes) {
    const __m512 weight = _mm512_maskz_mov_ps(lanes(j, tokens), exp2_of(_mm512_sub_ps(_mm512_loadu_ps(score + j), top)));
    _mm512_storeu_ps(score + j, weight);
    sum = _mm512_add_ps(sum, weight);
  }
  return _mm512_reduce_add_ps(sum);
}

template <typename Value>
void some_rows(const AttentionJob<Value>& job, size_t at, size_t first, size_t count, const Room& room) {
  const Value* rows[kRows];
  for (size_t i = 0; i < kRows; ++i) rows[i] = job.qkv + (first + (i < count ? i : count - 1)) * job.stride + at;
  scores(job, rows, room);
  __m512 inverse[kRows];
  for (size_t i = 0; i < kRows; ++i) inverse[i] = _mm512_set1_ps(1.0f / softmax(room.score + i * room.keys, job.tokens, room.keys));
  for (size_t d = 0; d < job.head_dim; d += kWide) {
    __m512 sums[kRows][2];
    products(room.score, room.keys, room.value + d, room.dims, job.tokens, sums);
    for (size_t i = 0; i < count; ++i) {
      Value* const out = job.out + (first + i) * job.out_stride + at + d;
      store(_mm512_mul_ps(sums[i][0], inverse[i]), lanes(d, job.head_dim), out);
      if (d + kLanes < job.head_dim) store(_mm512_mul_ps(sums[i][1], inverse[i]), lanes(d + kLanes, job.head_dim), out + kLanes);
    }
  }
}

template <typename Value>
void run(const AttentionJob<Value>* job) {
  const Room room(job->tokens, job->head_dim, job->scratch);
  for (size_t head = 0; head < job->heads; ++head) {
    const size_t at = head * job->head_dim;
    place(*job, at, room);
    for (size_t i = 0; i < job->tokens; i += kRows) some_rows(*job, at, i, job->tokens - i < kRows ? job->tokens - i : kRows, room);
  }
}

}  // namespace

const AttentionBf16 attention_bf16_avx512 = {run<uint16_t>, scratch_bytes, target};
const AttentionF32 attention_f32_avx512 = {run<float>, scratch_bytes, target};

}  // namespace nf::kernels

#endif
