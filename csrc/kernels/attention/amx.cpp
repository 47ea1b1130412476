// The process has asked for the tile registers (simd/cpu.cpp); the tile configuration lives only inside each call.
#include "kernels/attention/contract.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace nf::kernels {
namespace {

const char* target() { return "amx"; }

// Head by head: keys are transposed and values interleaved once, as the right operand wants them; then sixteen tokens at a time take their scores,
// the softmax of each row, and the products with the values. Sixteen, because their scores and weights stay in the first-level cache beside the
// keys and values of some 200 tokens.
constexpr size_t kTileRows = 16, kTileBytes = 64, kTile = kTileRows * kTileBytes, kDims = 32, kRows = 16, kKeys = 32;

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64, "the layout that ldtilecfg reads");

// Tiles 0 and 1 hold sums of up to sixteen rows, 4 the rows' operand, 6 and 7 the others.
void configure(size_t rows) {
  TileConfig config;
  const size_t each[8] = {rows, rows, 0, 0, rows, 0, kTileRows, kTileRows};
  for (int t = 0; t < 8; ++t) {
    if (each[t] == 0) continue;
    config.row_bytes[t] = kTileBytes;
    config.rows[t] = static_cast<uint8_t>(each[t]);
  }
  _tile_loadconfig(&config);
}

inline size_t whole(size_t count, size_t unit) { return (count + unit - 1) / unit; }

// What one head needs, in `scratch`: keys by 16 (a tile for each 32 dimensions), values by 32 (a tile for each 16 dimensions), scores of sixteen rows
// and their weights as bfloat16, sums of sixteen rows.
struct Room {
  size_t keys;        // padded to whole 32
  size_t key_tiles;   // of 16 keys
  size_t value_tiles; // of 32 keys, an even number
  uint8_t *key, *value;
  float* score;
  uint16_t* weight;
  float* sums;

  Room(size_t tokens, size_t head_dim, void* scratch) : keys(whole(tokens, kKeys) * kKeys), key_tiles(whole(head_dim, kDims)), value_tiles(2 * whole(head_dim, kDims)) {
    key = static_cast<uint8_t*>(scratch);
    value = key + keys / kTileRows * key_tiles * kTile;
    score = reinterpret_cast<float*>(value + keys / kKeys * value_tiles * kTile);
    weight = reinterpret_cast<uint16_t*>(score + kRows * keys);
    sums = reinterpret_cast<float*>(weight + kRows * keys);
  }
  size_t bytes() const { return keys / kTileRows * key_tiles * kTile + keys / kKeys * value_tiles * kTile + kRows * keys * 6 + kRows * kDims * 4; }
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

void scores(const uint16_t* queries, size_t stride, const Room& room) {
  const size_t row_bytes = room.keys * sizeof(float), step = room.key_tiles * kTile;
  for (size_t j = 0; j < room.keys; j += kKeys) {
    const uint8_t* const key = room.key + j / kTileRows * step;
    uint8_t* const out = reinterpret_cast<uint8_t*>(room.score + j);
    _tile_zero(0);
    _tile_zero(1);
    for (size_t t = 0; t < room.key_tiles; ++t) {
      _tile_loadd(4, queries + t * kDims, stride * sizeof(uint16_t));
      _tile_loadd(6, key + t * kTile, kTileBytes);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, key + step + t * kTile, kTileBytes);
      _tile_dpbf16ps(1, 4, 7);
    }
    _tile_stored(0, out, row_bytes);
    _tile_stored(1, out + kTileBytes, row_bytes);
  }
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

// The scores of sixteen rows to weights, and one over the sums of these. The order of rows in a tree's result does not matter as long as both use it.
void softmax(size_t rows, size_t tokens, const Room& room, float* inverse) {
  const size_t keys = room.keys, whole_keys = tokens / kKeys * kKeys;
  const __m512 never = _mm512_set1_ps(-1e30f);
  const size_t left = tokens - whole_keys;
  const auto some = [&](size_t from) { return static_cast<__mmask16>(left >= from + 16 ? 0xFFFFu : left > from ? (1u << (left - from)) - 1u : 0u); };
  const __mmask16 first = some(0), second = some(16);
  __m512 each[kRows];
  for (size_t i = 0; i < kRows; ++i) {
    const float* const score = room.score + (i < rows ? i : 0) * keys;
    __m512 a = never, b = never;
    for (size_t j = 0; j < whole_keys; j += kKeys) {
      a = _mm512_max_ps(a, _mm512_load_ps(score + j));
      b = _mm512_max_ps(b, _mm512_load_ps(score + j + 16));
    }
    if (left != 0) {
      a = _mm512_mask_max_ps(a, first, a, _mm512_load_ps(score + whole_keys));
      b = _mm512_mask_max_ps(b, second, b, _mm512_load_ps(score + whole_keys + 16));
    }
    each[i] = _mm512_max_ps(a, b);
  }
  alignas(64) float floors[kRows], shifts[kRows], sums[kRows];
  const __m512 top = joined(each, [](__m512 a, __m512 b) { return _mm512_max_ps(a, b); });
  _mm512_store_ps(floors, _mm512_sub_ps(top, _mm512_set1_ps(60.0f)));
  _mm512_store_ps(shifts, _mm512_sub_ps(_mm512_set1_ps(kShift), top));
  for (size_t i = 0; i < rows; ++i) {
    const float* const score = room.score + i * keys;
    uint16_t* const weight = room.weight + i * keys;
    const __m512 floor = _mm512_set1_ps(floors[kPlace[i]]), shift = _mm512_set1_ps(shifts[kPlace[i]]);
    __m512 a = _mm512_setzero_ps(), b = a;
    for (size_t j = 0; j < whole_keys; j += kKeys) {
      const __m512 p = exp2_of(_mm512_load_ps(score + j), floor, shift), q = exp2_of(_mm512_load_ps(score + j + 16), floor, shift);
      a = _mm512_add_ps(a, p);
      b = _mm512_add_ps(b, q);
      _mm512_store_si512(weight + j, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(q, p)));
    }
    if (left != 0) {
      const __m512 p = _mm512_maskz_mov_ps(first, exp2_of(_mm512_load_ps(score + whole_keys), floor, shift));
      const __m512 q = _mm512_maskz_mov_ps(second, exp2_of(_mm512_load_ps(score + whole_keys + 16), floor, shift));
      a = _mm512_add_ps(a, p);
      b = _mm512_add_ps(b, q);
      _mm512_store_si512(weight + whole_keys, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(q, p)));
    }
    each[i] = _mm512_add_ps(a, b);
  }
  for (size_t i = rows; i < kRows; ++i) each[i] = _mm512_set1_ps(1.0f);
  _mm512_store_ps(sums, _mm512_div_ps(_mm512_set1_ps(1.0f), joined(each, [](__m512 a, __m512 b) { return _mm512_add_ps(a, b); })));
  for (size_t i = 0; i < rows; ++i) inverse[i] = sums[kPlace[i]];
}

void mix(const Room& room, size_t column_tile) {
  const size_t row_bytes = room.keys * sizeof(uint16_t);
  const uint8_t* const weight = reinterpret_cast<const uint8_t*>(room.weight);
  _tile_zero(0);
  _tile_zero(1);
  for (size_t j = 0; j < room.keys; j += kKeys) {
    const uint8_t* const value = room.value + (j / kKeys * room.value_tiles + column_tile) * kTile;
    _tile_loadd(4, weight + j * sizeof(uint16_t), row_bytes);
    _tile_loadd(6, value, kTileBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, value + kTile, kTileBytes);
    _tile_dpbf16ps(1, 4, 7);
  }
  uint8_t* const out = reinterpret_cast<uint8_t*>(room.sums);
  constexpr size_t kRowBytes = kDims * sizeof(float);
  _tile_stored(0, out, kRowBytes);
  _tile_stored(1, out + kTileBytes, kRowBytes);
}

// Up to sixteen tokens of one head.
void some_rows(const AttentionJob<uint16_t>& job, size_t at, size_t first, size_t rows, const Room& room) {
  // The compiler does not know that tile instructions read and write memory.
  __asm__ volatile("" ::: "memory");
  scores(job.qkv + first * job.stride + at, job.stride, room);
  __asm__ volatile("" ::: "memory");
  float inverse[kRows];
  softmax(rows, job.tokens, room, inverse);
  for (size_t d = 0; d < job.head_dim; d += kDims) {
    __asm__ volatile("" ::: "memory");
    mix(room, d / kTileRows);
    __asm__ volatile("" ::: "memory");
    for (size_t i = 0; i < rows; ++i) {
      const __m512 scale = _mm512_set1_ps(inverse[i]);
      const __m512 a = _mm512_mul_ps(_mm512_load_ps(room.sums + i * kDims), scale), b = _mm512_mul_ps(_mm512_load_ps(room.sums + i * kDims + 16), scale);
      _mm512_mask_storeu_epi16(job.out + (first + i) * job.out_stride + at + d, first_of(job.head_dim - d), reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b, a)));
    }
  }
}

void run(const AttentionJob<uint16_t>* job) {
  const Room room(job->tokens, job->head_dim, job->scratch);
  const size_t whole_rows = job->tokens / kRows * kRows, left = job->tokens - whole_rows;
  for (size_t head = 0; head < job->heads; ++head) {
    const size_t at = head * job->head_dim;
    place_keys(job->qkv + job->keys + at, job->stride, job->tokens, job->head_dim, room);
    place_values(job->qkv + job->values + at, job->stride, job->tokens, job->head_dim, room);
    if (whole_rows != 0 && (head == 0 || left != 0)) configure(kRows);
    for (size_t i = 0; i < whole_rows; i += kRows) some_rows(*job, at, i, kRows, room);
    if (left == 0) continue;
    if (head == 0 || whole_rows != 0) configure(left);
    some_rows(*job, at, whole_rows, left, room);
  }
  _tile_release();
}

}  // namespace

const AttentionBf16 attention_bf16_amx = {run, scratch_bytes, target};

}  // namespace nf::kernels

#endif
