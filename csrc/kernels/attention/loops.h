// attention on targets of 8 or 4 floats a register.
//
// Per head, keys and values are laid out as a product's weights (kernels/linear.h, float32): keys with the sequence's tokens as columns, values
// with the head's. Then scores are one product of queries, contexts another one of exponentials, by the same tile of sums.
#pragma once

#include "kernels/attention/contract.h"
#include "kernels/encoder_loops.h"

namespace nf::kernels {

template <typename L>
struct AttentionLoops {
  using Loops = EncoderLoops<L>;
  using F = typename L::F;
  static constexpr size_t kRows = static_cast<size_t>(Loops::kRows), kCount = L::kCount;

  static inline size_t whole(size_t count) { return (count + kPanelColumns - 1) / kPanelColumns * kPanelColumns; }

  // Keys, values, queries of one group of rows, their exponentials, in this order.
  static size_t scratch_bytes(size_t tokens, size_t head_dim) {
    return sizeof(float) * (whole(tokens) * head_dim + tokens * whole(head_dim) + kRows * (whole(head_dim) + whole(tokens) + whole(head_dim)));
  }

  static inline float one(const float* p) { return *p; }
  static inline float one(const uint16_t* p) {
    const uint32_t bits = static_cast<uint32_t>(*p) << 16;
    float value;
    __builtin_memcpy(&value, &bits, sizeof(value));
    return value;
  }
  static inline void put(F v, float* p) { L::store(p, v); }
  static inline void put(F v, uint16_t* p) { L::narrow(v, p); }

  template <typename Value>
  static inline void copy_rows(const Value* from, size_t stride, size_t rows, size_t columns, float* to, size_t to_stride) {
    for (size_t i = 0; i < rows; ++i) {
      for (size_t d = 0; d < columns; ++d) to[i * to_stride + d] = one(from + i * stride + d);
    }
  }

  template <typename Value>
  struct Head {
    const AttentionJob<Value>& job;
    size_t at;  // where the head's columns begin
    float *keys, *values, *queries, *weights, *mixed;

    Head(const AttentionJob<Value>& given, size_t head) : job(given), at(head * given.head_dim) {
      keys = static_cast<float*>(given.scratch);
      values = keys + whole(given.tokens) * given.head_dim;
      queries = values + given.tokens * whole(given.head_dim);
      weights = queries + kRows * whole(given.head_dim);
      mixed = weights + kRows * whole(given.tokens);
      const Value* const key = given.qkv + given.keys + at;
      for (size_t j = 0; j < whole(given.tokens); ++j) {
        float* const column = keys + j / kPanelColumns * kPanelColumns * given.head_dim + j % kPanelColumns;
        for (size_t d = 0; d < given.head_dim; ++d) column[d * kPanelColumns] = j < given.tokens ? one(key + j * given.stride + d) : 0.0f;
      }
      const Value* const value = given.qkv + given.values + at;
      for (size_t p = 0; p < whole(given.head_dim); p += kPanelColumns) {
        const size_t columns = given.head_dim - p < kPanelColumns ? given.head_dim - p : kPanelColumns;
        float* const panel = values + p * given.tokens;
        for (size_t j = 0; j < given.tokens; ++j) {
          for (size_t c = 0; c < kPanelColumns; ++c) panel[j * kPanelColumns + c] = c < columns ? one(value + j * given.stride + p + c) : 0.0f;
        }
      }
    }

    // Exponentials in place of a row's scores; returns one over their sum.
    inline float softmax(float* row) const {
      const size_t end = whole(job.tokens);
      for (size_t j = job.tokens; j < end; ++j) row[j] = -3e38f;  // no keys: their exponentials are zero
      F most = L::load(row);
      for (size_t j = kCount; j < end; j += kCount) most = L::max(most, L::load(row + j));
      const F top = L::set(L::most(most));
      F sums[2] = {L::zero(), L::zero()};
      for (size_t j = 0; j < end; j += 2 * kCount) {
#pragma GCC unroll 2
        for (size_t i = 0; i < 2; ++i) {
          const F p = Loops::exp2(L::sub(L::load(row + j + i * kCount), top));
          L::store(row + j + i * kCount, p);
          sums[i] = L::add(sums[i], p);
        }
      }
      return 1.0f / L::sum(L::add(sums[0], sums[1]));
    }

    template <int R>
    inline void run(size_t row) const {
      F sums[R][Loops::kVectors];
      const size_t width = whole(job.head_dim), length = whole(job.tokens);
      copy_rows(job.qkv + row * job.stride + at, job.stride, R, job.head_dim, queries, width);
      for (size_t p = 0; p < length; p += kPanelColumns) {
        Loops::template tile<R>(queries, width, keys + p * job.head_dim, job.head_dim, sums);
#pragma GCC unroll 8
        for (size_t r = 0; r < R; ++r) {
#pragma GCC unroll 4
          for (size_t v = 0; v < Loops::kVectors; ++v) L::store(weights + r * length + p + v * kCount, sums[r][v]);
        }
      }
      float inverse[R];
      for (size_t r = 0; r < R; ++r) inverse[r] = softmax(weights + r * length);
      for (size_t p = 0; p < width; p += kPanelColumns) {
        Loops::template tile<R>(weights, length, values + p * job.tokens, job.tokens, sums);
#pragma GCC unroll 8
        for (size_t r = 0; r < R; ++r) {
#pragma GCC unroll 4
          for (size_t v = 0; v < Loops::kVectors; ++v) L::store(mixed + r * width + p + v * kCount, L::mul(sums[r][v], L::set(inverse[r])));
        }
      }
      for (size_t r = 0; r < R; ++r) write(mixed + r * width, job.out + (row + r) * job.out_stride + at);
    }

    // The head's own columns, and none behind them.
    inline void write(const float* from, Value* to) const {
      size_t d = 0;
      for (; d + kCount <= job.head_dim; d += kCount) put(L::load(from + d), to + d);
      if (d == job.head_dim) return;
      Value last[kCount];
      put(L::load(from + d), last);
      for (size_t i = 0; d + i < job.head_dim; ++i) to[d + i] = last[i];
    }
  };

  template <typename Value>
  static void run(const AttentionJob<Value>* job) {
    for (size_t head = 0; head < job->heads; ++head) by_rows<Loops::kRows>(job->tokens, Head<Value>(*job, head));
  }
};

}  // namespace nf::kernels
