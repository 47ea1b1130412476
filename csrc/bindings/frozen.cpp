#include "graph/frozen.h"

#include "bindings/graph_search.h"
#include "bindings/module.h"
#include "bindings/storage.h"

namespace py = pybind11;

namespace nf::bindings {
namespace {

using graph::Frozen;

template <typename Queries>
py::tuple search(const Frozen& index, const Queries& queries, std::size_t k, std::size_t limit, std::size_t ef, const OptionalMask& mask,
                 const OptionalBias& bias, int threads, const std::string& mode, double step, const OptionalSkip& skip) {
  QueryRows rows(queries, index.graph().params.dim);
  return search_graph(index, rows, request_of(rows.rows(), k, limit, ef, mask, bias, threads, mode, step, skip));
}

py::array_t<float> score_rows(const Frozen& index, const Array<float>& queries, const Array<std::int64_t>& slots, int threads) {
  return score_slots(index, matrix(queries, index.graph().params.dim, "queries"), slots, threads);
}

py::array_t<float> get(const Frozen& index, const Array<std::int64_t>& slots) { return get_rows(index, slots, index.graph().params.dim); }

void save(const Frozen& index, const std::string& path, const Sections& sections) {
  storage::Writer writer("frozen");
  const BorrowedSections borrowed(sections);
  borrowed.give_to(writer);
  const py::gil_scoped_release release;  // safe: the buffers are held by `borrowed`
  index.save(writer, path);
}

std::unique_ptr<Frozen> from_container(const std::shared_ptr<storage::MappedFile>& file) {
  const py::gil_scoped_release release;
  return std::make_unique<Frozen>(file);
}

py::dict params(const Frozen& index) {
  py::dict values = dict_of(index.graph().params);
  values["compact"] = index.graph().layout == graph::Layout::compact;
  return values;
}

py::dict stats(const Frozen& index) {
  const graph::FrozenGraph& graph = index.graph();
  std::vector<std::uint64_t> degrees;
  {
    const py::gil_scoped_release release;
    degrees = index.degrees();
  }
  const std::size_t fine = graph.fine != nullptr ? codec::code_width(graph.params.dim) : 0;
  py::dict values;
  values["slots"] = graph.size;
  values["live"] = graph.live;
  values["degrees"] = degrees;
  values["doors"] = graph.doors.size();
  values["codes_bytes"] = graph.size * (graph.shape.row + fine);
  values["links_bytes"] = graph.size * (graph.shape.stride - graph.shape.row);
  values["other_bytes"] = graph.size + graph.doors.size() * (graph.shape.row + sizeof(std::uint32_t));
  values["target"] = graph.layout == graph::Layout::inlined ? kernels::estimate_1bit().target() : kernels::dot_i8().target();
  return values;
}

}  // namespace

void register_frozen(py::module_& m) {
  m.def("scan_pays", &graph::scan_pays, py::arg("matches"), py::arg("size"), py::arg("ef"), py::arg("step"), py::arg("hop"),
        "Whether a graph's search scans `matches` of `size` slots instead of walking with width ef; step: rows of a scan as much work as a node of a walk; "
        "hop: as for walk_nodes.");
  m.def("walk_nodes", &graph::walk_nodes, py::arg("matches"), py::arg("size"), py::arg("ef"), py::arg("hop"),
        "How many nodes a walk of width ef is as much work as, where `matches` of `size` slots may be results. hop: the same of a walk over these alone, for "
        "each of its candidates.");
  m.def("hops_pay", &graph::hops_pay, py::arg("matches"), py::arg("size"), py::arg("hop"), "Whether a walk goes over the slots that may be results alone.");
  py::class_<Frozen> type(m, "Frozen", "A graph that no longer changes, by slot as Hnsw.");
  def_search(type, &search<Array<float>>);
  def_search(type, &search<TextQueries>);
  type.def_static("from_container", &from_container, py::arg("file"), "Uses the graph where an opened file has it; holds the file.")
      .def("set_growth", [](Frozen& index, double rate, double near, double square) { index.set_growth({rate, near, square}); }, py::arg("rate"),
           py::arg("near"), py::arg("square"),
           "How fast distances grow with rank, what counts as near at least, and rows' |x|^2: walks then end by distance. To be set before the first search.")
      .def("score", &score_rows, py::arg("queries").noconvert(), py::arg("slots").noconvert(), py::arg("threads") = 0, "As Hnsw.score.")
      .def("get", &get, py::arg("slots").noconvert(), "The rows as they are kept: float32 (n, dim).")
      .def("live_slots", [](const Frozen& index) { return live_slots_of(index); }, "The slots of live rows, rising.")
      .def("stats", &stats, "Counts of degrees, where walks begin, memory in bytes, the target of the kernel that walks use most.")
      .def("params", &params, "dim, metric, M, ef_construction, seed, compact.")
      .def("save", &save, py::arg("path"), py::arg("sections"), "Writes a container of kind 'frozen': these sections, then the graph.")
      .def_property_readonly("slots", [](const Frozen& index) { return index.graph().size; }, "How many slots there are, tombstones included.")
      .def_property_readonly("hop_nodes", &Frozen::hop_nodes, "As for walk_nodes.")
      .def_property_readonly("live", [](const Frozen& index) { return index.graph().live; }, "How many rows are live.")
      .def_property_readonly("row_bytes", [](const Frozen& index) { return index.bytes_per_row(); }, "Memory of one row with its links and codes.");
}

}  // namespace nf::bindings
