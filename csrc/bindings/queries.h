// The queries of a search at the engine's door: vectors that are there, or texts that become vectors inside the call.
#pragma once

#include <pybind11/numpy.h>

#include <atomic>
#include <cstddef>
#include <string>

#include "base/aligned.h"
#include "base/view.h"
#include "bindings/arrays.h"
#include "bindings/texts.h"
#include "encoder/model.h"
#include "encoder/wordpiece.h"

namespace nf::bindings {

// Texts with the tokenizer and the model that make vectors of them, all held for as long as this lives.
class TextQueries {
 public:
  TextQueries(pybind11::object tokenizer, pybind11::object model, const pybind11::list& texts, std::size_t max_tokens, pybind11::str prompt, int threads);

  std::size_t size() const { return texts_.size(); }
  std::size_t dim() const { return model_.shape().width; }
  // Texts that were cut to max_tokens when they were last encoded.
  std::size_t truncated() const { return truncated_.load(std::memory_order_relaxed); }
  // Writes float32 (size, dim). Needs no GIL. Throws InputError for a lone surrogate or a token that the model lacks, FormatError for NaN or
  // infinity: the weights are damaged.
  void encode(float* out) const;

 private:
  pybind11::object held_tokenizer_, held_model_;
  const encoder::WordPiece& tokenizer_;
  const encoder::Model& model_;
  Texts texts_;
  pybind11::str prompt_;
  encoder::TextView front_;
  std::size_t max_tokens_;
  int threads_;
  mutable std::atomic<std::size_t> truncated_{0};
};

// What a search reads; the argument is held by the caller's frame.
class QueryRows {
 public:
  QueryRows(const Array<float>& given, std::size_t dim) : rows_(matrix(given, dim, "queries")) {}
  QueryRows(const TextQueries& given, std::size_t dim) : texts_(&given), made_(given.size() * given.dim()), rows_(made_.data(), given.size(), given.dim()) {
    if (given.dim() != dim) {
      throw InputError("queries: vectors of " + std::to_string(given.dim()) + " columns given, " + std::to_string(dim) + " expected");
    }
  }

  MatrixView<float> rows() const { return rows_; }
  // Makes the vectors that are not there yet. Needs no GIL, and must come before the rows are read.
  void fill() {
    if (texts_ != nullptr) texts_->encode(made_.data());
  }

 private:
  const TextQueries* texts_ = nullptr;
  AlignedBuffer<float> made_;
  MatrixView<float> rows_;
};

}  // namespace nf::bindings
