// The process has asked for the tile registers (simd/cpu.cpp); the tile configuration lives only inside each call.
#include "kernels/attention/contract.h"

#if defined(__x86_64__)
#include "kernels/amx_tiles.h"

namespace nf::kernels {
namespace {

const char* target() { return "amx"; }

// Head by head: keys are transposed and values interleaved once, as the right operand wants them; then sixteen tokens at a time take their scores,
// the softmax of each row, and the products with the values. Sixteen, because their scores and weights stay in the first-level cache beside the
// keys and values of some 200 tokens. The tile unit works ahead and behind: while the vector units look for the largest scores of a block, it
// multiplies the weights of the block before, and while they raise two to the power of these scores, it makes those of the next block.
constexpr size_t kTile = kTileRows * kTileBytes, kDims = 32, kRows = 16, kKeys = 32;

inline size_t whole(size_t count, size_t unit) { return (count + unit - 1) / unit; }

// What one head needs, in `scratch`: keys by 16 (a tile for each 32 dimensions), values by 32 (a tile for each 16 dimensions), scores of two blocks
// of rows, weights of one as bfloat16, products with the values for each 32 dimensions, and the last rows' queries, whole tiles of them.
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
    weight = reinterpret_cast<uint16_t*>(score + 2 * kRows * keys);
    sums = reinterpret_cast<float*>(weight + kRows * keys);
    query = reinterpret_cast<uint16_t*>(sums + key_tiles * kRows * kDims);
  }
  // Of all of them: a token of keys and values, and its part of three blocks' rows; sums and queries.
  size_t bytes() const {
    return keys / kTileRows * key_tiles * kTile + keys / kKeys * value_tiles * kTile + keys * kRows * (2 * sizeof(float) + sizeof(uint16_t)) +
           key_tiles * kRows * kDims * (sizeof(float) + sizeof(uint16_t));
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

void place_keys(const uint16_t* rows, size_t stride, size_t tokens, size_t head_dim, const Room& room) {
  for (size_t j = 0; j < room.keys; j += kTileRows) {
    for (size_t t = 0; t < room.key_tiles; ++t) {
      const __mmask32 dims = first_of(head_dim - t * kDims);
      __m512i sixteen[kTileRows];
      for (size_t i = 0; i < kTileRows; ++i) {
        sixteen[i] = j + i < tokens ? _mm512_maskz_loadu_epi16(dims, rows + (j + i) * stride + t * kDims) : _mm512_setzero_si512();
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

void place_values(const uint16_t* rows, size_t stride, size_t tokens, size_t head_dim, const Room& room) {
  for (size_t j = 0; j < room.keys; j += 2) {
    uint8_t* const to = room.value + j / kKeys * room.value_tiles * kTile + j % kKeys / 2 * kTileBytes;
    for (size_t t = 0; t < room.value_tiles; t += 2) {
      const __mmask32 dims = first_of(head_dim - t * kTileRows);
      const auto row = [&](size_t token) { return token < tokens ? _mm512_maskz_loadu_epi16(dims, rows + token * stride + t * kTileRows) : _mm512_setzero_si512(); };
      interleave(row(j), row(j + 1), to + t * kTile, to + (t + 1) * kTile);
    }
  }
}

// A block of rows on its way: which rows, and where their queries and scores are.
struct Block {
  size_t first, rows;
  const uint16_t* queries;
  size_t stride;  // of queries, in bytes
  float* score;
};

// The scores of a block with the next 32 keys; `unit` counts these. The compiler does not know that tile instructions read and write memory.
inline void score_unit(const Block& block, const Room& room, size_t unit) {
  const size_t row_bytes = room.keys * sizeof(float), step = room.key_tiles * kTile;
  const uint8_t* const key = room.key + 2 * unit * step;
  uint8_t* const out = reinterpret_cast<uint8_t*>(block.score + unit * kKeys);
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
  _tile_stored(0, out, row_bytes);
  _tile_stored(1, out + kTileBytes, row_bytes);
  __asm__ volatile("" ::: "memory");
}

// The products of the weights with the values of the next 32 keys, 32 dimensions after the other.
inline void mix_unit(const Room& room, size_t unit) {
  const size_t steps = room.keys / kKeys, part = unit / steps, step = unit % steps, row_bytes = room.keys * sizeof(uint16_t);
  const uint8_t* const value = room.value + (step * room.value_tiles + 2 * part) * kTile;
  __asm__ volatile("" ::: "memory");
  if (step == 0) {
    _tile_zero(2);
    _tile_zero(3);
  }
  _tile_loadd(5, room.weight + step * kKeys, row_bytes);
  _tile_loadd(6, value, kTileBytes);
  _tile_dpbf16ps(2, 5, 6);
  _tile_loadd(7, value + kTile, kTileBytes);
  _tile_dpbf16ps(3, 5, 7);
  if (step + 1 == steps) {
    uint8_t* const out = reinterpret_cast<uint8_t*>(room.sums + part * kRows * kDims);
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

// 2^(x - n) for whole numbers n near top, x no more than top: by a cubic over |x - m| <= 1/2, m the nearest whole number, off by at most 1.1e-4
// relatively, times 2^(m - n). Adding `shift`, 1.5 * 2^23 - n, leaves m - n in the low bits. Below floor it stays 2^(floor - n).
inline __m512 exp2_of(__m512 x, __m512 floor, __m512 shift) {
  const __m512 t = _mm512_max_ps(x, floor);
  const __m512 shifted = _mm512_add_ps(t, shift), r = _mm512_sub_ps(t, _mm512_sub_ps(shifted, shift));
  __m512 p = _mm512_set1_ps(0.0551713198f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.242610544f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.69326099f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.999928107f));
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(shifted), 23)));
}

constexpr float kShift = 12582912.0f;  // 1.5 * 2^23

// The last, incomplete 32 columns of a row of scores.
struct Tail {
  size_t at, left;
  __mmask16 first, second;

  explicit Tail(size_t tokens) : at(tokens / kKeys * kKeys), left(tokens - at), first(some(0)), second(some(16)) {}
  __mmask16 some(size_t from) const { return static_cast<__mmask16>(left >= from + 16 ? 0xFFFFu : left > from ? (1u << (left - from)) - 1u : 0u); }
};

inline __m512 largest(const float* score, const Tail& tail) {
  __m512 a = _mm512_set1_ps(-1e30f), b = a;
  for (size_t j = 0; j < tail.at; j += kKeys) {
    a = _mm512_max_ps(a, _mm512_load_ps(score + j));
    b = _mm512_max_ps(b, _mm512_load_ps(score + j + 16));
  }
  if (tail.left != 0) {
    a = _mm512_mask_max_ps(a, tail.first, a, _mm512_load_ps(score + tail.at));
    b = _mm512_mask_max_ps(b, tail.second, b, _mm512_load_ps(score + tail.at + 16));
  }
  return _mm512_max_ps(a, b);
}

// One row of scores to weights; returns the sums of the lanes.
inline __m512 to_weights(const float* score, const Tail& tail, float top, uint16_t* weight) {
  const __m512 floor = _mm512_set1_ps(top - 60.0f), shift = _mm512_set1_ps(kShift - top);
  __m512 a = _mm512_setzero_ps(), b = a;
  const auto put = [&](size_t j, __m512 p, __m512 q) {
    a = _mm512_add_ps(a, p);
    b = _mm512_add_ps(b, q);
    _mm512_store_si512(weight + j, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(q, p)));
  };
  for (size_t j = 0; j < tail.at; j += kKeys) put(j, exp2_of(_mm512_load_ps(score + j), floor, shift), exp2_of(_mm512_load_ps(score + j + 16), floor, shift));
  if (tail.left != 0) {
    put(tail.at, _mm512_maskz_mov_ps(tail.first, exp2_of(_mm512_load_ps(score + tail.at), floor, shift)),
        _mm512_maskz_mov_ps(tail.second, exp2_of(_mm512_load_ps(score + tail.at + 16), floor, shift)));
  }
  return _mm512_add_ps(a, b);
}

// The softmax of a block's rows; one over the sums of their weights, in `joined`'s order. `behind(i)` and `ahead(i)` are the tile unit's work beside row i.
template <typename Behind, typename Ahead>
inline void softmax(const Block& block, const Tail& tail, const Room& room, float* inverse, const Behind& behind, const Ahead& ahead) {
  __m512 each[kRows];
  for (size_t i = 0; i < kRows; ++i) {
    behind(i);
    each[i] = i < block.rows ? largest(block.score + i * room.keys, tail) : _mm512_setzero_ps();
  }
  alignas(64) float tops[kRows];
  _mm512_store_ps(tops, joined(each, [](__m512 a, __m512 b) { return _mm512_max_ps(a, b); }));
  for (size_t i = 0; i < kRows; ++i) {
    ahead(i);
    each[i] = i < block.rows ? to_weights(block.score + i * room.keys, tail, tops[kPlace[i]], room.weight + i * room.keys) : _mm512_set1_ps(1.0f);
  }
  _mm512_store_ps(inverse, _mm512_div_ps(_mm512_set1_ps(1.0f), joined(each, [](__m512 a, __m512 b) { return _mm512_add_ps(a, b); })));
}

// The products of a block's weights with the values, divided by the weights' sums.
void finish(const AttentionJob<uint16_t>& job, size_t at, const Block& block, const Room& room, const float* inverse) {
  for (size_t d = 0; d < job.head_dim; d += kDims) {
    const float* const sums = room.sums + d * kRows;
    for (size_t i = 0; i < block.rows; ++i) {
      const __m512 scale = _mm512_set1_ps(inverse[kPlace[i]]);
      const __m512 a = _mm512_mul_ps(_mm512_load_ps(sums + i * kDims), scale), b = _mm512_mul_ps(_mm512_load_ps(sums + i * kDims + 16), scale);
      _mm512_mask_storeu_epi16(job.out + (block.first + i) * job.out_stride + at + d, first_of(job.head_dim - d), reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b, a)));
    }
  }
}

// Block `index` of a head. Whole tiles of queries are read: where these would leave the sequence's rows, they are copied.
Block block_of(const AttentionJob<uint16_t>& job, size_t at, size_t index, const Room& room) {
  Block block{index * kRows, job.tokens - index * kRows, job.qkv + index * kRows * job.stride + at, job.stride * sizeof(uint16_t), room.score + index % 2 * kRows * room.keys};
  const size_t width = room.key_tiles * kDims;
  if (block.rows >= kRows) {
    block.rows = kRows;
    if (at + width <= job.stride) return block;
  }
  for (size_t i = 0; i < kRows; ++i) {
    for (size_t d = 0; d < width; d += kDims) {
      const __mmask32 dims = i < block.rows ? first_of(job.head_dim - d) : 0;
      _mm512_store_si512(room.query + i * width + d, _mm512_maskz_loadu_epi16(dims, block.queries + (i < block.rows ? i : 0) * job.stride + d));
    }
  }
  block.queries = room.query;
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
  const size_t blocks = whole(job.tokens, kRows), units = room.keys / kKeys, mixes = units * room.key_tiles;
  const Tail tail(job.tokens);
  alignas(64) float inverse[2][kRows];
  Block before{}, block = block_of(job, at, 0, room);
  for (size_t u = 0; u < units; ++u) score_unit(block, room, u);
  for (size_t b = 0; b < blocks; ++b) {
    ask_for_rows(job, at + job.head_dim, b);
    const Block next = b + 1 < blocks ? block_of(job, at, b + 1, room) : Block{};
    const auto behind = [&](size_t i) {
      for (size_t u = mixes * i / kRows; b != 0 && u < mixes * (i + 1) / kRows; ++u) mix_unit(room, u);
    };
    const auto ahead = [&](size_t i) {
      for (size_t u = units * i / kRows; next.rows != 0 && u < units * (i + 1) / kRows; ++u) score_unit(next, room, u);
    };
    softmax(block, tail, room, inverse[b % 2], behind, ahead);
    if (b != 0) finish(job, at, before, room, inverse[(b - 1) % 2]);
    before = block;
    block = next;
  }
  for (size_t u = 0; u < mixes; ++u) mix_unit(room, u);
  finish(job, at, before, room, inverse[(blocks - 1) % 2]);
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
