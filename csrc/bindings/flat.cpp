#include "score/flat_store.h"

#include <optional>

#include "bindings/arrays.h"
#include "bindings/module.h"
#include "bindings/queries.h"
#include "bindings/storage.h"
#include "parallel/pool.h"

namespace py = pybind11;

namespace nf::bindings {
namespace {

using score::FlatStore;
using MaybeMask = std::optional<Array<bool>>;
using MaybeBias = std::optional<Array<float>>;

template <typename T>
MatrixView<T> aligned_with(const Array<T>& array, std::size_t nq, std::size_t limit, const char* what) {
  const MatrixView<T> view = matrix(array, limit, what);
  if (view.rows != 1 && view.rows != nq) throw InputError(std::string(what) + ": one row, or one for each query, expected");
  return view;
}

void append(FlatStore& store, const Array<float>& vectors, const Array<std::int64_t>& dead, int threads) {
  const MatrixView<float> rows = matrix(vectors, store.dim(), "vectors");
  const std::vector<std::uint64_t> slots = slot_numbers(dead);
  const int count = parallel::resolve_threads(threads);
  const py::gil_scoped_release release;  // before the store's lock; safe: the vectors are held by this frame
  store.append(rows, slots, count);
}

template <typename Queries>
py::tuple search(const FlatStore& store, const Queries& queries, std::size_t k, std::size_t limit, const MaybeMask& mask, const MaybeBias& bias,
                 double guarantee, int threads) {
  QueryRows rows(queries, store.dim());
  const MatrixView<float> q = rows.rows();
  score::Options options;
  options.k = k;
  options.guarantee = guarantee;
  options.threads = parallel::resolve_threads(threads);
  if (mask) {
    const MatrixView<bool> given = aligned_with(*mask, q.rows, limit, "filter");
    options.mask = MatrixView<std::uint8_t>(reinterpret_cast<const std::uint8_t*>(given.data), given.rows, given.cols);
  }
  if (bias) options.bias = aligned_with(*bias, q.rows, limit, "bias");
  Found found(q.rows, k);
  py::array_t<std::int64_t> rescored(static_cast<py::ssize_t>(q.rows));
  const score::Answer answer{found.slots.mutable_data(), found.scores.mutable_data(), found.counts.mutable_data(), rescored.mutable_data()};
  {
    const py::gil_scoped_release release;  // before the store's lock; safe: borrowed and fresh arrays held by this frame
    rows.fill();
    store.search(q, options, limit, answer);
  }
  return py::make_tuple(found.slots, found.scores, found.counts, rescored);
}

py::array_t<float> score_rows(const FlatStore& store, const Array<float>& queries, const Array<std::int64_t>& slots, int threads) {
  return score_slots(store, matrix(queries, store.dim(), "queries"), slots, threads);
}

py::array_t<float> get(const FlatStore& store, const Array<std::int64_t>& given) {
  const std::vector<std::uint64_t> slots = slot_numbers(given);
  py::array_t<float> out({slots.size(), store.dim()});
  float* const place = out.mutable_data();
  const py::gil_scoped_release release;  // before the store's lock
  store.get(slots, place);
  return out;
}

py::array_t<std::int64_t> live_slots(const FlatStore& store) {
  std::vector<std::uint64_t> slots;
  {
    const py::gil_scoped_release release;  // before the store's lock
    slots = store.live_slots();
  }
  py::array_t<std::int64_t> out(static_cast<py::ssize_t>(slots.size()));
  for (std::size_t i = 0; i < slots.size(); ++i) out.mutable_data()[i] = static_cast<std::int64_t>(slots[i]);
  return out;
}

void save(const FlatStore& store, const std::string& path, const Sections& sections) {
  storage::Writer writer("flat");
  const BorrowedSections borrowed(sections);
  borrowed.give_to(writer);
  const py::gil_scoped_release release;  // before the store's lock; safe: the buffers are held by `borrowed`
  store.save(writer, path);
}

std::unique_ptr<FlatStore> create(std::size_t dim, const std::string& metric, const std::string& storage) {
  return std::make_unique<FlatStore>(dim, metric_of(metric), storage_of(storage));
}

std::unique_ptr<FlatStore> from_container(const std::shared_ptr<storage::MappedFile>& file, std::size_t dim, const std::string& metric,
                                          const std::string& storage, std::size_t count) {
  return std::make_unique<FlatStore>(file, dim, metric_of(metric), storage_of(storage), count);
}

}  // namespace

void register_flat(py::module_& m) {
  using Release = py::call_guard<py::gil_scoped_release>;
  py::class_<FlatStore> type(m, "FlatStore", "Rows for exact search, by slot: a row's number in order of insertion.");
  const auto add_search = [&type](auto function) {
    type.def("search", function, py::arg("queries").noconvert(), py::arg("k"), py::arg("limit"), py::arg("mask").noconvert() = py::none(),
             py::arg("bias").noconvert() = py::none(), py::arg("guarantee") = 1.0, py::arg("threads") = 0,
             "The exact k best live rows among slots 0..limit-1: slots (nq, k), scores (nq, k), counts (nq,), rows rescored (nq,). "
             "With a guarantee below 1, each query's are the exact ones with that probability.");
  };
  add_search(&search<Array<float>>);
  add_search(&search<TextQueries>);
  type.def(py::init(&create), py::arg("dim"), py::arg("metric"), py::arg("storage"))
      .def_static("from_container", &from_container, py::arg("file"), py::arg("dim"), py::arg("metric"), py::arg("storage"), py::arg("count"),
                  "Borrows the rows of an opened file, which stays open.")
      .def("append", &append, py::arg("vectors").noconvert(), py::arg("dead").noconvert(), py::arg("threads") = 0,
           "Appends rows (n, dim) and marks slots dead, as one step for every search.")
      .def("score", &score_rows, py::arg("queries").noconvert(), py::arg("slots").noconvert(), py::arg("threads") = 0,
           "The exact scores of chosen slots (nq, m): float32 (nq, m), NaN where the slot is -1.")
      .def("set_rotation", &FlatStore::set_rotation, py::arg("seed"), Release(), "Draws another rotation for searches with a guarantee below 1.")
      .def("get", &get, py::arg("slots").noconvert(), "The stored rows: float32 (n, dim).")
      .def("live_slots", &live_slots, "The slots of live rows, rising.")
      .def("compacted", &FlatStore::compacted, Release(), "A new store of the live rows alone, renumbered from 0 in order.")
      .def("save", &save, py::arg("path"), py::arg("sections"), "Writes a container of kind 'flat': these sections, then the live rows.")
      .def_property_readonly("slots", py::cpp_function(&FlatStore::slots, Release()), "How many slots there are, dead ones included.")
      .def_property_readonly("live", py::cpp_function(&FlatStore::live, Release()), "How many rows are live.");
}

}  // namespace nf::bindings
