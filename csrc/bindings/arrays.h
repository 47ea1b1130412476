// numpy arrays at the engine's door: checked and borrowed, never converted in silence.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/view.h"
#include "parallel/pool.h"

namespace nf::bindings {

// C-contiguous arrays of exactly this dtype; arguments that take them are marked noconvert.
template <typename T>
using Array = pybind11::array_t<T, pybind11::array::c_style>;

// Borrows the array's memory: the caller's frame keeps it alive during the call.
template <typename T>
MatrixView<T> matrix(const Array<T>& array, const char* what) {
  if (array.ndim() != 2) throw InputError(std::string(what) + ": a matrix expected");
  return MatrixView<T>(array.data(), static_cast<std::size_t>(array.shape(0)), static_cast<std::size_t>(array.shape(1)));
}

template <typename T>
MatrixView<T> matrix(const Array<T>& array, std::size_t cols, const char* what) {
  const MatrixView<T> view = matrix(array, what);
  if (view.cols != cols) {
    throw InputError(std::string(what) + ": " + std::to_string(view.cols) + " columns given, " + std::to_string(cols) + " expected");
  }
  return view;
}

// Copies slot numbers (few beside the vectors they name) and refuses negative ones.
inline std::vector<std::uint64_t> slot_numbers(const Array<std::int64_t>& array) {
  if (array.ndim() != 1) throw InputError("slots: a vector expected");
  std::vector<std::uint64_t> slots;
  slots.reserve(static_cast<std::size_t>(array.size()));
  for (pybind11::ssize_t i = 0; i < array.size(); ++i) {
    if (array.data()[i] < 0) throw InputError("slots: negative number given");
    slots.push_back(static_cast<std::uint64_t>(array.data()[i]));
  }
  return slots;
}

// What Index::score writes: float32 (nq, m) for slots (nq, m).
template <typename Index>
pybind11::array_t<float> score_slots(const Index& index, MatrixView<float> queries, const Array<std::int64_t>& given, int threads) {
  const MatrixView<std::int64_t> slots = matrix(given, "slots");
  if (slots.rows != queries.rows) throw InputError("slots: one row for each query expected");
  const int count = parallel::resolve_threads(threads);
  pybind11::array_t<float> out({slots.rows, slots.cols});
  float* const place = out.mutable_data();
  const pybind11::gil_scoped_release release;  // before the index's lock; safe: borrowed and fresh arrays held by the callers' frames
  index.score(queries, slots, count, place);
  return out;
}

// The three arrays of a search, made under the GIL and filled without it.
struct Found {
  pybind11::array_t<std::int64_t> slots;
  pybind11::array_t<float> scores;
  pybind11::array_t<std::int64_t> counts;
  Found(std::size_t nq, std::size_t k) : slots({nq, k}), scores({nq, k}), counts(static_cast<pybind11::ssize_t>(nq)) {}
  pybind11::tuple as_tuple() const { return pybind11::make_tuple(slots, scores, counts); }
};

}  // namespace nf::bindings
