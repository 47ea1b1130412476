// A search over a graph, mutable or frozen: the arguments become a graph::Request.
#pragma once

#include <optional>
#include <string>

#include "bindings/arrays.h"
#include "bindings/queries.h"
#include "graph/request.h"
#include "parallel/pool.h"

namespace nf::bindings {

using OptionalMask = std::optional<Array<bool>>;
using OptionalBias = std::optional<Array<float>>;
using OptionalSkip = std::optional<Array<std::int64_t>>;

// The arrays of a request are held by the caller's frame.
graph::Request request_of(MatrixView<float> queries, std::size_t k, std::size_t limit, std::size_t ef, const OptionalMask& mask, const OptionalBias& bias,
                          int threads, const std::string& mode, double step, const OptionalSkip& skip);

// `queries` are those of the request.
template <typename Index>
pybind11::tuple search_graph(const Index& index, QueryRows& queries, const graph::Request& request) {
  Found found(request.nq, request.k);
  const graph::Answer answer{found.slots.mutable_data(), found.scores.mutable_data(), found.counts.mutable_data()};
  {
    const pybind11::gil_scoped_release release;  // before the index's lock; safe: borrowed and fresh arrays held by the callers' frames
    queries.fill();
    index.search(request, answer);
  }
  return found.as_tuple();
}

// One of a type's searches: by vectors or by texts, the arguments are the same.
template <typename Type, typename Function>
void def_search(Type& type, Function function) {
  namespace py = pybind11;
  type.def("search", function, py::arg("queries").noconvert(), py::arg("k"), py::arg("limit"), py::arg("ef"), py::arg("mask").noconvert() = py::none(),
           py::arg("bias").noconvert() = py::none(), py::arg("threads") = 0, py::arg("mode") = "automatic", py::arg("step") = 0.0,
           py::arg("skip").noconvert() = py::none(),
           "The k best live rows among slots 0..limit-1: slots (nq, k), scores (nq, k), counts (nq,). mode: 'automatic', 'walk', 'hop' or 'scan'.");
}

template <typename Index>
pybind11::array_t<float> get_rows(const Index& index, const Array<std::int64_t>& given, std::size_t dim) {
  const std::vector<std::uint64_t> slots = slot_numbers(given);
  pybind11::array_t<float> out({slots.size(), dim});
  float* const place = out.mutable_data();
  const pybind11::gil_scoped_release release;  // before the index's lock
  index.get(slots, place);
  return out;
}

template <typename Index>
pybind11::array_t<std::int64_t> live_slots_of(const Index& index) {
  std::vector<std::uint64_t> slots;
  {
    const pybind11::gil_scoped_release release;  // before the index's lock
    slots = index.live_nodes();
  }
  pybind11::array_t<std::int64_t> out(static_cast<pybind11::ssize_t>(slots.size()));
  for (std::size_t i = 0; i < slots.size(); ++i) out.mutable_data()[i] = static_cast<std::int64_t>(slots[i]);
  return out;
}

pybind11::dict dict_of(const graph::Params& params);

}  // namespace nf::bindings
