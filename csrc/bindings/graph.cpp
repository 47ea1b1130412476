#include "graph/index.h"

#include "bindings/graph_search.h"
#include "bindings/module.h"
#include "bindings/storage.h"
#include "graph/frozen.h"

namespace py = pybind11;

namespace nf::bindings {
namespace {

using graph::Hnsw;
using graph::Sight;
using Release = py::call_guard<py::gil_scoped_release>;

std::unique_ptr<Hnsw> create(std::uint32_t dim, const std::string& metric, std::uint32_t m, std::uint32_t ef_construction, std::uint64_t seed, float alpha) {
  graph::Params params;
  params.dim = dim;
  params.metric = metric_of(metric);
  params.m = m;
  params.ef_construction = ef_construction;
  params.seed = seed;
  params.alpha = alpha;
  return std::make_unique<Hnsw>(params);
}

void append(Hnsw& index, const Array<float>& vectors, const Array<std::int64_t>& dead, int threads) {
  const MatrixView<float> rows = matrix(vectors, index.params().dim, "vectors");
  const std::vector<std::uint64_t> slots = slot_numbers(dead);
  const int count = parallel::resolve_threads(threads);
  const py::gil_scoped_release release;  // before the index's lock; safe: the vectors are held by this frame
  index.append(rows.data, rows.rows, slots, count);
}

void check(const Hnsw& index, const Array<float>& vectors) {
  const MatrixView<float> rows = matrix(vectors, index.params().dim, "vectors");
  const py::gil_scoped_release release;  // safe: the vectors are held by this frame
  index.check(rows.data, rows.rows);
}

template <typename Index, typename Queries>
py::tuple search(const Index& index, const Queries& queries, std::size_t k, std::size_t limit, std::size_t ef, const OptionalMask& mask,
                 const OptionalBias& bias, int threads, const std::string& mode, double step, const OptionalSkip& skip) {
  QueryRows rows(queries, index.params().dim);
  return search_graph(Sight(index), rows, request_of(rows.rows(), k, limit, ef, mask, bias, threads, mode, step, skip));
}

template <typename Index>
py::array_t<float> score_rows(const Index& index, const Array<float>& queries, const Array<std::int64_t>& slots, int threads) {
  return score_slots(Sight(index), matrix(queries, index.params().dim, "queries"), slots, threads);
}

template <typename Index>
py::array_t<float> get(const Index& index, const Array<std::int64_t>& slots) {
  return get_rows(Sight(index), slots, index.params().dim);
}

std::unique_ptr<graph::Frozen> freeze(const Hnsw& index, bool compact, int threads) {
  const int count = parallel::resolve_threads(threads);
  const py::gil_scoped_release release;  // before the index's lock
  return index.freeze(compact ? graph::Layout::compact : graph::Layout::inlined, count);
}

void save(const Hnsw& index, const std::string& path, const Sections& sections) {
  storage::Writer writer("hnsw");
  const BorrowedSections borrowed(sections);
  borrowed.give_to(writer);
  const py::gil_scoped_release release;  // before the index's lock; safe: the buffers are held by `borrowed`
  index.save(writer, path);
}

py::dict stats(const Hnsw& index) {
  graph::Stats found;
  {
    const py::gil_scoped_release release;  // before the index's lock
    found = index.stats();
  }
  py::dict values;
  values["slots"] = found.nodes;
  values["live"] = found.live;
  values["degrees"] = found.degrees;
  values["levels"] = found.levels;
  values["to_deleted"] = found.to_deleted;
  values["unreached"] = found.unreached;
  values["rows_bytes"] = found.rows_bytes;
  values["codes_bytes"] = found.codes_bytes;
  values["links_bytes"] = found.links_bytes;
  values["other_bytes"] = found.other_bytes;
  values["target"] = kernels::dot_i8().target();
  return values;
}

std::unique_ptr<Hnsw> consolidated(Hnsw& index, int threads) {
  const int count = parallel::resolve_threads(threads);
  const py::gil_scoped_release release;  // before the index's lock
  return index.consolidated(count);
}

std::unique_ptr<Hnsw> from_container(const std::shared_ptr<storage::MappedFile>& file) {
  const py::gil_scoped_release release;
  return Hnsw::load(*file);
}

py::dict params_of(const graph::Params& params) {
  py::dict values = dict_of(params);
  values["alpha"] = params.alpha;
  return values;
}

// What an index and one moment of it have in common; the index answers as it is when it is asked.
template <typename Index>
void add_readers(py::class_<Index>& type) {
  def_search(type, &search<Index, Array<float>>);
  def_search(type, &search<Index, TextQueries>);
  type
      .def("score", &score_rows<Index>, py::arg("queries").noconvert(), py::arg("slots").noconvert(), py::arg("threads") = 0,
           "The exact scores of chosen slots (nq, m): float32 (nq, m), NaN where the slot is -1.")
      .def("get", &get<Index>, py::arg("slots").noconvert(), "The stored rows: float32 (n, dim).")
      .def("live_slots", [](const Index& index) { return live_slots_of(Sight(index)); }, "The slots of live rows, rising.")
      .def("params", [](const Index& index) { return params_of(index.params()); }, "dim, metric, M, ef_construction, seed, alpha.")
      .def_property_readonly("slots", [](const Index& index) { return Sight(index).size(); }, "How many slots there are, tombstones included.")
      .def_property_readonly("hop_nodes", [](const Index&) { return Hnsw::kHopNodes; }, "As for walk_nodes.")
      .def_property_readonly("live", [](const Index& index) { return Sight(index).live(); }, "How many rows are live.");
}

}  // namespace

void register_graph(py::module_& m) {
  py::class_<Sight> sight(m, "HnswView", "An Hnsw as it was when the view was made: for searches, while the index goes on changing.");
  add_readers(sight);
  py::class_<Hnsw> index(m, "Hnsw", "A hierarchical navigable small world graph, by slot: a row's number in order of insertion.");
  add_readers(index);
  index.def(py::init(&create), py::arg("dim"), py::arg("metric"), py::arg("M"), py::arg("ef_construction"), py::arg("seed"),
            py::arg("alpha") = 1.0f)
      .def_static("from_container", &from_container, py::arg("file"), "Copies the graph out of an opened file and checks every field of it.")
      .def("append", &append, py::arg("vectors").noconvert(), py::arg("dead").noconvert(), py::arg("threads") = 0,
           "Adds rows (n, dim) and deletes dead slots, as one step for every search; lists that named these are mended.")
      .def("check", &check, py::arg("vectors").noconvert(), "Raises what append would raise for these rows.")
      .def("view", [](const Hnsw& index) { return Sight(index); }, py::keep_alive<0, 1>(), "The index at this moment.")
      .def("connect", &Hnsw::connect, Release(), "Makes every live slot reachable from the entry.")
      .def("unreached", &Hnsw::unreached, Release(), "How many live slots cannot be reached from the entry.")
      .def("stats", &stats, "Counts of degrees and levels, reachability, memory in bytes, the target of the kernel that walks use.")
      .def("consolidated", &consolidated, py::arg("threads") = 0, "A copy of the live rows alone, in new slots in the same order.")
      .def("freeze", &freeze, py::arg("compact") = false, py::arg("threads") = 0, "The graph as it is now, laid out for search alone.")
      .def("save", &save, py::arg("path"), py::arg("sections"), "Writes a container of kind 'hnsw': these sections, then the graph.");
}

}  // namespace nf::bindings
