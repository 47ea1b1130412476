// A borrowed row-major matrix. The view owns nothing: whoever makes it keeps the memory alive while it is used.
#pragma once

#include <cstddef>

namespace nf {

template <typename T>
struct MatrixView {
  const T* data = nullptr;
  std::size_t rows = 0;
  std::size_t cols = 0;
  std::size_t stride = 0;  // elements from one row to the next, >= cols

  MatrixView() = default;
  MatrixView(const T* data_, std::size_t rows_, std::size_t cols_) : data(data_), rows(rows_), cols(cols_), stride(cols_) {}
  MatrixView(const T* data_, std::size_t rows_, std::size_t cols_, std::size_t stride_)
      : data(data_), rows(rows_), cols(cols_), stride(stride_) {}

  const T* row(std::size_t i) const { return data + i * stride; }
};

}  // namespace nf
