// A packed BERT encoder: token ids in, pooled vectors out.
//
//   Model::pack(shape, tensors, precision, plan)    from float32 weights by name
//   Model::open(blob, bytes, owner)                 a packed model where it lies, say in a mapped file
//
// The same tokens give the same bits in any batch, at any position and with any number of threads, for a given target and packed model: every
// row is computed by itself or within its sequence, and no sum is ever split between threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "encoder/layout.h"
#include "encoder/shape.h"

namespace nf::encoder {

// A weight matrix (rows, cols), row-major, output by input; a vector is one row. Names are BERT's own, without a prefix:
// "embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.query.bias" and so on.
struct Tensor {
  std::string name;
  const float* data;
  std::size_t rows, cols;
};

// Seconds of one thread by stage, for tables of where a token's time goes.
struct StageTimes {
  enum Stage { embed, qkv, attention, attention_output, norm, up, quantize, down, pool, kCount };
  double seconds[kCount] = {};
  static const char* name(std::size_t stage);
};

class Model {
 public:
  // `plan` names a kind for each linear layer, four for each layer; empty: default_plan. Throws InputError for a tensor that is missing, has
  // another shape or is not finite, and for shapes beyond the limits of encoder/layout.h.
  static Model pack(const Shape& shape, const std::vector<Tensor>& tensors, Precision precision, std::vector<Kind> plan);

  // Checks the header and the length, not the weights: wrong weights give wrong vectors, never an access outside the block. `blob` begins on a
  // 64-byte boundary. Throws FormatError.
  static Model open(const std::uint8_t* blob, std::size_t bytes, std::shared_ptr<const void> owner);

  const Shape& shape() const { return header().shape; }
  Precision precision() const { return header().precision; }
  const Header& header() const { return *reinterpret_cast<const Header*>(blob_); }
  const Layout& layout() const { return layout_; }
  const std::uint8_t* blob() const { return blob_; }
  std::size_t bytes() const { return layout_.bytes; }

  // Texts are ids[offsets[i]] to ids[offsets[i + 1]] - 1, at least one token and at most `positions` each; out is (texts, width).
  // `times`, where given, is filled, and everything runs on the caller's thread.
  Status encode(const std::int32_t* ids, const std::int64_t* offsets, std::size_t texts, float* out, int threads, StageTimes* times = nullptr) const;

  template <typename T>
  const T* at(std::size_t place) const {
    return reinterpret_cast<const T*>(blob_ + place);
  }

 private:
  Model(const std::uint8_t* blob, std::shared_ptr<const void> owner);

  const std::uint8_t* blob_;
  std::shared_ptr<const void> owner_;
  Layout layout_;
};

}  // namespace nf::encoder
