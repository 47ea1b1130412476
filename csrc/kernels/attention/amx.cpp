// The process has asked for the tile registers (simd/cpu.cpp); the tile configuration lives only inside each call.
#include "kernels/attention/contract.h"

#if defined(__x86_64__)
#include "kernels/amx_tiles.h"

namespace nf::kernels {
namespace {

const char* target() { return "amx"; }

// Head by head: keys are transposed and values interleaved once, as the right operand wants them; then sixteen tokens at a time go over the keys, 32 after
// the other: their scores, two to the power of these, and the products with the values. The tile unit makes the next scores and multiplies the last
// weights while the vector units raise. No row's greatest score is looked for: weights are 2^s as they come, which bfloat16 holds for all scores that
// differ by less than 60 from none; where the sum of a row says that they did not, its block is done again with the greatest score taken off.
constexpr size_t kTile = kTileRows * kTileBytes, kDims = 32, kRows = 16, kKeys = 32;

inline size_t whole(size_t count, size_t unit) { return (count + unit - 1) / unit; }

// What one head needs, in `scratch`: keys by 16 (a tile for each 32 dimensions), values by 32 (a tile for each 16 dimensions), the scores of two times 32
// keys, the weights of a block of rows as bfloat16, two blocks' products with the values for each 32 dimensions, and the last rows' queries, whole tiles of them.
struct Room {
  size_t keys;         // padded to whole 32
  size_t key_tiles;    // of 16 keys
  size_t value_tiles;  // of 32 keys, an even number
  uint8_t *key, *value;
  float* score;
  uint16_t* weight;
  float* sums;
  uint16_t* query;

  Room(size_t tokens, size_t head_dim, void* scratch) : keys(whole(tokens, kKeys) * kKeys), key_tiles(whole(head_dim, kDims)), value_tiles(2 * whole(head_dim, kDims)) {
    key = static_cast<uint8_t*>(scratch);
    value = key + keys / kTileRows * key_tiles * kTile;
    score = reinterpret_cast<float*>(value + keys / kKeys * value_tiles * kTile);
    weight = reinterpret_cast<uint16_t*>(score + 2 * kRows * kKeys);
    sums = reinterpret_cast<float*>(weight + kRows * keys);
    query = reinterpret_cast<uint16_t*>(sums + 2 * key_tiles * kRows * kDims);
  }
  // A token of keys and values, and its part of a block's weights; scores; sums and queries, for two blocks.
  size_t bytes() const {
    return keys / kTileRows * key_tiles * kTile + keys / kKeys * value_tiles * kTile + keys * kRows * sizeof(uint16_t) + 2 * kRows * kKeys * sizeof(float) +
           2 * key_tiles * kRows * kDims * (sizeof(float) + sizeof(uint16_t));
  }
};

size_t scratch_bytes(size_t tokens, size_t head_dim) { return Room(tokens, head_dim, nullptr).bytes(); }

// 16 x 16 32-bit values, columns to rows.
inline void transpose(const __m512i* in, uint8_t* out) {
  __m512i a[16], b[16];
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_epi32(in[i], in[i + 1]);
    a[i + 1] = _mm512_unpackhi_epi32(in[i], in[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
    b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
    b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
    b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    a[i] = _mm512_shuffle_i32x4(b[i], b[i + 4], 0x88);
    a[i + 4] = _mm512_shuffle_i32x4(b[i], b[i + 4], 0xDD);
    a[i + 8] = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0x88);
    a[i + 12] = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0xDD);
  }
  for (int i = 0; i < 8; ++i) {
    _mm512_store_si512(out + i * kTileBytes, _mm512_shuffle_i32x4(a[i], a[i + 8], 0x88));
    _mm512_store_si512(out + (i + 8) * kTileBytes, _mm512_shuffle_i32x4(a[i], a[i + 8], 0xDD));
  }
}

inline __mmask32 first_of(size_t count) { return count >= 32 ? 0xFFFFFFFFu : (1u << count) - 1u; }

// Scores are wanted in units of 1/512, so keys are taken times 512: nine more in the exponent. (Zero becomes 2^-118.)
constexpr short kTimesUnits = 9 << 7;

void place_keys(const uint16_t* rows, size_t stride, size_t tokens, size_t head_dim, const Room& room) {
  for (size_t j = 0; j < room.keys; j += kTileRows) {
    for (size_t t = 0; t < room.key_tiles; ++t) {
      const __mmask32 dims = first_of(head_dim - t * kDims);
      __m512i sixteen[kTileRows];
      for (size_t i = 0; i < kTileRows; ++i) {
        sixteen[i] = j + i < tokens ? _mm512_maskz_add_epi16(dims, _mm512_maskz_loadu_epi16(dims, rows + (j + i) * stride + t * kDims), _mm512_set1_epi16(kTimesUnits))
                                    : _mm512_setzero_si512();
      }
      transpose(sixteen, room.key + (j / kTileRows * room.key_tiles + t) * kTile);
    }
  }
}

// Two tokens' 32 values, pair by pair: the first sixteen, the other sixteen.
inline void interleave(__m512i a, __m512i b, uint8_t* first, uint8_t* second) {
  const __m512i low = _mm512_unpacklo_epi16(a, b), high = _mm512_unpackhi_epi16(a, b);
  _mm512_store_si512(first, _mm512_permutex2var_epi64(low, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), high));
  _mm512_store_si512(second, _mm512_permutex2var_epi64(low, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), high));
}

// Packing two registers of scores works within lanes of 16 bytes: weights of keys 0 to 3 stand before those of 16 to 19, then 4 to 7, and so on. Where
// the pair of values goes that belongs to keys j and j + 1 of 32.
inline size_t pair_of(size_t j) { return j % 16 / 4 * 4 + j / 16 * 2 + j % 4 / 2; }

void place_values(const uint16_t* rows, size_t stride, size_t tokens, size_t head_dim, const Room& room) {
  for (size_t j = 0; j < room.keys; j += 2) {
    uint8_t* const to = room.value + j / kKeys * room.value_tiles * kTile + pair_of(j % kKeys) * kTileBytes;
    for (size_t t = 0; t < room.value_tiles; t += 2) {
      const __mmask32 dims = first_of(head_dim - t * kTileRows);
      const auto row = [&](size_t token) { return token < tokens ? _mm512_maskz_loadu_epi16(dims, rows + token * stride + t * kTileRows) : _mm512_setzero_si512(); };
      interleave(row(j), row(j + 1), to + t * kTile, to + (t + 1) * kTile);
    }
  }
}

// A block of rows on its way: which rows, and where their queries and sums are.
struct Block {
  size_t first, rows;
  const uint16_t* queries;
  size_t stride;  // of queries, in bytes
  float* sums;
};

// The scores of a block with the next 32 keys; `unit` counts these. The compiler does not know that tile instructions read and write memory.
inline void score_unit(const Block& block, const Room& room, size_t unit, float* score) {
  const size_t step = room.key_tiles * kTile;
  const uint8_t* const key = room.key + 2 * unit * step;
  uint8_t* const out = reinterpret_cast<uint8_t*>(score);
  __asm__ volatile("" ::: "memory");
  _tile_zero(0);
  _tile_zero(1);
  for (size_t t = 0; t < room.key_tiles; ++t) {
    _tile_loadd(4, block.queries + t * kDims, block.stride);
    _tile_loadd(6, key + t * kTile, kTileBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, key + step + t * kTile, kTileBytes);
    _tile_dpbf16ps(1, 4, 7);
  }
  _tile_stored(0, out, kKeys * sizeof(float));
  _tile_stored(1, out + kTileBytes, kKeys * sizeof(float));
  __asm__ volatile("" ::: "memory");
}

// The products of the weights with the values of the next 32 keys, in the 32 dimensions of `part`.
inline void mix_unit(const Block& block, const Room& room, size_t part, size_t unit) {
  const uint8_t* const value = room.value + (unit * room.value_tiles + 2 * part) * kTile;
  __asm__ volatile("" ::: "memory");
  if (unit == 0) {
    _tile_zero(2);
    _tile_zero(3);
  }
  _tile_loadd(5, room.weight + unit * kKeys, room.keys * sizeof(uint16_t));
  _tile_loadd(6, value, kTileBytes);
  _tile_dpbf16ps(2, 5, 6);
  _tile_loadd(7, value + kTile, kTileBytes);
  _tile_dpbf16ps(3, 5, 7);
  if ((unit + 1) * kKeys == room.keys) {
    uint8_t* const out = reinterpret_cast<uint8_t*>(block.sums + part * kRows * kDims);
    _tile_stored(2, out, kDims * sizeof(float));
    _tile_stored(3, out + kTileBytes, kDims * sizeof(float));
  }
  __asm__ volatile("" ::: "memory");
}

// Where `joined` puts the join of each register's lanes.
constexpr size_t kPlace[kRows] = {0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15};

// Sixteen registers to one: lane kPlace[i] of the result joins the lanes of register i.
template <typename Join>
inline __m512 joined(const __m512* in, const Join& join) {
  __m512 a[8], b[4], c[2];
  for (int i = 0; i < 8; ++i) a[i] = join(_mm512_shuffle_f32x4(in[i], in[i + 8], 0x44), _mm512_shuffle_f32x4(in[i], in[i + 8], 0xEE));
  for (int i = 0; i < 4; ++i) b[i] = join(_mm512_shuffle_f32x4(a[i], a[i + 4], 0x88), _mm512_shuffle_f32x4(a[i], a[i + 4], 0xDD));
  for (int i = 0; i < 2; ++i) c[i] = join(_mm512_shuffle_ps(b[i], b[i + 2], 0x44), _mm512_shuffle_ps(b[i], b[i + 2], 0xEE));
  const __m512 d = join(_mm512_shuffle_ps(c[0], c[1], 0x88), _mm512_shuffle_ps(c[0], c[1], 0xDD));
  return d;
}

// f - (2^f - 1) in units of 1/512, in the middle of each 64th of 0 <= f < 1. What a score's bits say as a float's exponent and fraction is 2^n (1 + f):
// too much by 2^n times this.
alignas(64) constexpr uint8_t kTooMuch[64] = {
    1, 4, 6, 8, 10, 13, 15, 17, 19, 21, 22, 24, 26, 27, 29, 30, 32, 33, 34, 36, 37, 38, 39, 40, 40, 41, 42, 42, 43, 43, 44, 44,
    44, 44, 44, 44, 44, 43, 43, 43, 42, 41, 41, 40, 39, 38, 37, 36, 34, 33, 31, 30, 28, 26, 24, 22, 20, 18, 15, 13, 10, 7, 4, 2,
};

struct Powers {
  const __m512i too_much = _mm512_load_si512(kTooMuch), bias = _mm512_set1_epi16(127 << 7);

  // 2^s as bfloat16, in the order of `pair_of`, of 32 scores in units: n and f in sixteen bits, f corrected, the last two bits cut off (every weight of a row is
  // less for it, so it is no bias). A weight is off by at most 2^-7 from its row's common factor. |s| >= 64 counts as 64.
  inline __m512i operator()(__m512 first, __m512 second) const {
    const __m512i units = _mm512_packs_epi32(_mm512_cvtps_epi32(first), _mm512_cvtps_epi32(second));
    const __m512i less = _mm512_maskz_permutexvar_epi8(0x5555555555555555u, _mm512_srli_epi16(units, 3), too_much);
    return _mm512_add_epi16(_mm512_srai_epi16(_mm512_subs_epi16(units, less), 2), bias);
  }
};

// Sums of weights that say that no score of a row left the range of its sixteen bits: greater ones would make it 2^63, and the least possible weight,
// 2^-64, beside a sum of 2^-34, is nothing.
constexpr float kLeastSum = 0x1p-34f, kMostSum = 0x1p62f;

// Those of 32 keys, the last ones of a sequence, that are its own, in the order of the weights.
inline __mmask32 own_of(size_t left) {
  __mmask32 own = 0;
  for (size_t j = 0; j < left; ++j) own |= 1u << (pair_of(j) * 2 + j % 2);
  return own;
}

inline __m512 added(__m512 sum, __m512i weights) {
  const __m512i ones = _mm512_set1_epi16(0x3F80);
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(weights), reinterpret_cast<__m512bh>(ones));
}

// The weights of a block with 32 keys, `kShift`: with something taken off each row's scores. `each` sums them up.
template <bool kShift>
inline void weigh(const float* score, const Powers& power, __mmask32 own, const float* shift, uint16_t* weight, size_t stride, __m512* each) {
#pragma GCC unroll 16
  for (size_t i = 0; i < kRows; ++i) {
    __m512 first = _mm512_load_ps(score + i * kKeys), second = _mm512_load_ps(score + i * kKeys + 16);
    if constexpr (kShift) {
      first = _mm512_sub_ps(first, _mm512_set1_ps(shift[kPlace[i]]));
      second = _mm512_sub_ps(second, _mm512_set1_ps(shift[kPlace[i]]));
    }
    const __m512i weights = _mm512_maskz_mov_epi16(own, power(first, second));
    _mm512_store_si512(weight + i * stride, weights);
    each[i] = added(each[i], weights);
  }
}

inline __m512 total_of(const __m512* each) {
  return joined(each, [](__m512 a, __m512 b) { return _mm512_add_ps(a, b); });
}

// The whole block again, each of the rows in `far` less its greatest score; returns the sums.
__attribute__((noinline)) __m512 block_again(const Block& block, const Room& room, __mmask32 last, __mmask16 far) {
  const Powers power;
  const size_t units = room.keys / kKeys;
  __m512 each[kRows];
  for (auto& row : each) row = _mm512_set1_ps(-3e38f);
  const __m512i to_key = _mm512_setr_epi32(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
  for (size_t u = 0; u < units; ++u) {
    score_unit(block, room, u, room.score);
    // The mask is in the order of weights: bits of keys 4 n to 4 n + 3 are 8 n on, those of the other sixteen four behind.
    const __mmask32 own = u + 1 < units ? 0xFFFFFFFFu : last;
    const __m512i bits = _mm512_srlv_epi32(_mm512_set1_epi32(static_cast<int>(own)), to_key);
    const __mmask16 first = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(1)), second = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(16));
    for (size_t i = 0; i < kRows; ++i) {
      each[i] = _mm512_mask_max_ps(each[i], first, each[i], _mm512_load_ps(room.score + i * kKeys));
      each[i] = _mm512_mask_max_ps(each[i], second, each[i], _mm512_load_ps(room.score + i * kKeys + 16));
    }
  }
  alignas(64) float shift[kRows];
  _mm512_store_ps(shift, _mm512_maskz_mov_ps(far, joined(each, [](__m512 a, __m512 b) { return _mm512_max_ps(a, b); })));
  for (auto& row : each) row = _mm512_setzero_ps();
  for (size_t u = 0; u < units; ++u) {
    score_unit(block, room, u, room.score);
    weigh<true>(room.score, power, u + 1 < units ? 0xFFFFFFFFu : last, shift, room.weight + u * kKeys, room.keys, each);
    mix_unit(block, room, 0, u);
  }
  return total_of(each);
}

// The products of a block's weights with the values, divided by the weights' sums.
void finish(const AttentionJob<uint16_t>& job, size_t at, const Block& block, const float* inverse) {
  for (size_t d = 0; d < job.head_dim; d += kDims) {
    const float* const sums = block.sums + d * kRows;
    for (size_t i = 0; i < block.rows; ++i) {
      const __m512 scale = _mm512_set1_ps(inverse[kPlace[i]]);
      const __m512 a = _mm512_mul_ps(_mm512_load_ps(sums + i * kDims), scale), b = _mm512_mul_ps(_mm512_load_ps(sums + i * kDims + 16), scale);
      _mm512_mask_storeu_epi16(job.out + (block.first + i) * job.out_stride + at + d, first_of(job.head_dim - d), reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b, a)));
    }
  }
}

// Block `index` of a head. Whole tiles of queries are read: where these would leave the sequence's rows, they are copied.
Block block_of(const AttentionJob<uint16_t>& job, size_t at, size_t index, const Room& room) {
  Block block{index * kRows, job.tokens - index * kRows, job.qkv + index * kRows * job.stride + at, job.stride * sizeof(uint16_t), room.sums + index % 2 * room.key_tiles * kRows * kDims};
  const size_t width = room.key_tiles * kDims;
  uint16_t* const query = room.query + index % 2 * kRows * width;
  if (block.rows >= kRows) {
    block.rows = kRows;
    if (at + width <= job.stride) return block;
  }
  for (size_t i = 0; i < kRows; ++i) {
    for (size_t d = 0; d < width; d += kDims) {
      const __mmask32 dims = i < block.rows ? first_of(job.head_dim - d) : 0;
      _mm512_store_si512(query + i * width + d, _mm512_maskz_loadu_epi16(dims, block.queries + (i < block.rows ? i : 0) * job.stride + d));
    }
  }
  block.queries = query;
  block.stride = width * sizeof(uint16_t);
  return block;
}

// Rows lie some kilobytes apart, too far for the processor to see what is next: the next head's part of a block of them.
inline void ask_for_rows(const AttentionJob<uint16_t>& job, size_t at, size_t block) {
  if (at + job.head_dim > job.heads * job.head_dim) return;
  for (size_t i = block * kRows; i < (block + 1) * kRows && i < job.tokens; ++i) {
    const uint16_t* const row = job.qkv + i * job.stride + at;
    for (size_t d = 0; d < job.head_dim; d += kDims) {
      __builtin_prefetch(row + d);
      __builtin_prefetch(row + job.keys + d);
      __builtin_prefetch(row + job.values + d);
    }
  }
}

void one_head(const AttentionJob<uint16_t>& job, size_t at, const Room& room) {
  place_keys(job.qkv + job.keys + at, job.stride, job.tokens, job.head_dim, room);
  place_values(job.qkv + job.values + at, job.stride, job.tokens, job.head_dim, room);
  const Powers power;
  const size_t blocks = whole(job.tokens, kRows), units = room.keys / kKeys;
  const __mmask32 last = own_of(job.tokens - (units - 1) * kKeys);
  alignas(64) float inverse[2][kRows];
  float *score = room.score, *ahead = room.score + kRows * kKeys;
  Block before{}, block = block_of(job, at, 0, room);
  score_unit(block, room, 0, score);
  for (size_t b = 0; b < blocks; ++b) {
    ask_for_rows(job, at + job.head_dim, b);
    const Block next = b + 1 < blocks ? block_of(job, at, b + 1, room) : block;
    __m512 each[kRows];
    for (auto& row : each) row = _mm512_setzero_ps();
    for (size_t u = 0; u < units; ++u) {
      const bool more = u + 1 < units;
      score_unit(more ? block : next, room, more ? u + 1 : 0, ahead);
      weigh<false>(score, power, more ? 0xFFFFFFFFu : last, nullptr, room.weight + u * kKeys, room.keys, each);
      if (u != 0) mix_unit(block, room, 0, u - 1);
      float* const done = score;
      score = ahead;
      ahead = done;
    }
    mix_unit(block, room, 0, units - 1);
    if (b != 0) finish(job, at, before, inverse[(b - 1) % 2]);
    __m512 total = total_of(each);
    const auto far = static_cast<__mmask16>(~_mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(total, _mm512_set1_ps(kLeastSum), _CMP_GE_OQ), total, _mm512_set1_ps(kMostSum), _CMP_LE_OQ));
    if (far != 0) {
      total = block_again(block, room, last, far);
      score_unit(next, room, 0, score);  // its room was used
    }
    for (size_t part = 1; part < room.key_tiles; ++part) {
      for (size_t u = 0; u < units; ++u) mix_unit(block, room, part, u);
    }
    _mm512_store_ps(inverse[b % 2], _mm512_div_ps(_mm512_set1_ps(1.0f), total));
    before = block;
    block = next;
  }
  finish(job, at, before, inverse[(blocks - 1) % 2]);
}

void run(const AttentionJob<uint16_t>* job) {
  const Room room(job->tokens, job->head_dim, job->scratch);
  configure_whole();
  for (size_t head = 0; head < job->heads; ++head) one_head(*job, head * job->head_dim, room);
  _tile_release();
}

}  // namespace

const AttentionBf16 attention_bf16_amx = {run, scratch_bytes, target};

}  // namespace nf::kernels

#endif
