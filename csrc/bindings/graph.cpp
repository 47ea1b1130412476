#include "graph/index.h"

#include <optional>
#include <string>

#include <pybind11/stl.h>

#include "base/status.h"
#include "bindings/module.h"
#include "parallel/pool.h"

namespace py = pybind11;

namespace nf::bindings {
namespace {

using graph::Hnsw;

// No conversion: an array of another type or layout is refused, so that no hidden copy is made here.
using Floats = py::array_t<float, py::array::c_style>;
using Bytes = py::array_t<std::uint8_t, py::array::c_style>;
using Nodes = py::array_t<std::uint32_t, py::array::c_style>;

std::string shape_of(const py::array& array) { return py::str(array.attr("shape")); }

void check_matrix(const Floats& rows, std::size_t dim, const char* what) {
  if (rows.ndim() == 2 && static_cast<std::size_t>(rows.shape(1)) == dim) return;
  throw InputError(std::string(what) + ": shape " + shape_of(rows) + " given, (n, " + std::to_string(dim) + ") expected");
}

std::vector<std::uint32_t> nodes_of(const Nodes& nodes) {
  if (nodes.ndim() != 1) throw InputError("nodes: shape " + shape_of(nodes) + " given, (n,) expected");
  return std::vector<std::uint32_t>(nodes.data(), nodes.data() + nodes.size());
}

template <typename T, typename Array>
graph::PerNode<T> per_node(const std::optional<Array>& array, std::size_t nq, const char* what) {
  if (!array) return {};
  const auto rows = array->ndim() == 2 ? static_cast<std::size_t>(array->shape(0)) : 0;
  if (rows != 1 && rows != nq) throw InputError(std::string(what) + ": shape " + shape_of(*array) + " given, (1, nodes) or (queries, nodes) expected");
  return {array->data(), rows, static_cast<std::size_t>(array->shape(1))};
}

graph::Mode mode_of(const std::string& name) {
  if (name == "automatic") return graph::Mode::automatic;
  if (name == "walk") return graph::Mode::walk;
  if (name == "scan") return graph::Mode::scan;
  throw InputError("mode: '" + name + "' given, 'automatic', 'walk' or 'scan' expected");
}

std::unique_ptr<Hnsw> make(std::uint32_t dim, const std::string& metric, std::uint32_t m, std::uint32_t ef_construction, std::uint64_t seed) {
  graph::Params params;
  params.dim = dim;
  params.metric = metric_of(metric);
  params.m = m;
  params.ef_construction = ef_construction;
  params.seed = seed;
  return std::make_unique<Hnsw>(params);
}

std::size_t add(Hnsw& index, const Floats& rows, const Nodes& replaced, int threads) {
  check_matrix(rows, index.params().dim, "vectors");
  const std::vector<std::uint32_t> tombs = nodes_of(replaced);
  const float* data = rows.data();
  const auto count = static_cast<std::size_t>(rows.shape(0));
  threads = parallel::resolve_threads(threads);
  // The arguments keep the arrays alive; only their memory is read. Without Python's lock before the index's: see graph/index.h.
  const py::gil_scoped_release release;
  return index.add(data, count, tombs, threads);
}

void remove(Hnsw& index, const Nodes& nodes) {
  const std::vector<std::uint32_t> tombs = nodes_of(nodes);
  const py::gil_scoped_release release;
  index.remove(tombs);
}

Floats get(const Hnsw& index, const Nodes& nodes) {
  const std::vector<std::uint32_t> wanted = nodes_of(nodes);
  Floats rows({wanted.size(), static_cast<std::size_t>(index.params().dim)});
  float* out = rows.mutable_data();
  {
    const py::gil_scoped_release release;
    index.get(wanted, out);
  }
  return rows;
}

py::tuple search(const Hnsw& index, const Floats& queries, std::size_t k, std::size_t ef, const std::optional<Bytes>& allowed,
                 const std::optional<Floats>& bias, const std::string& mode, int threads) {
  check_matrix(queries, index.params().dim, "queries");
  graph::Request request;
  request.queries = queries.data();
  request.nq = static_cast<std::size_t>(queries.shape(0));
  request.k = k;
  request.ef = ef;
  request.allowed = per_node<std::uint8_t>(allowed, request.nq, "allowed");
  request.bias = per_node<float>(bias, request.nq, "bias");
  request.mode = mode_of(mode);
  request.threads = parallel::resolve_threads(threads);
  py::array_t<std::int64_t> nodes({request.nq, k});
  Floats scores({request.nq, k});
  py::array_t<std::int64_t> counts(static_cast<py::ssize_t>(request.nq));
  const graph::Answer answer{nodes.mutable_data(), scores.mutable_data(), counts.mutable_data()};
  {
    // Only memory of arrays that this frame holds is touched.
    const py::gil_scoped_release release;
    index.search(request, answer);
  }
  return py::make_tuple(nodes, scores, counts);
}

Bytes tombstones(const Hnsw& index) {
  std::vector<std::uint8_t> dead;
  {
    const py::gil_scoped_release release;
    dead = index.tombstones();
  }
  return Bytes(static_cast<py::ssize_t>(dead.size()), dead.data());
}

template <std::size_t (Hnsw::*Count)() const>
std::size_t count(const Hnsw& index) {
  const py::gil_scoped_release release;
  return (index.*Count)();
}

void save(const Hnsw& index, const std::string& path, const std::map<std::string, py::bytes>& extra) {
  std::vector<std::pair<std::string, std::string>> sections(extra.begin(), extra.end());
  const py::gil_scoped_release release;
  index.save(path, sections);
}

py::tuple load(const std::string& path, const std::vector<std::string>& extra, bool mmap, bool verify) {
  std::shared_ptr<storage::MappedFile> file;
  std::unique_ptr<Hnsw> index;
  {
    const py::gil_scoped_release release;
    file = storage::MappedFile::open(path, "hnsw", mmap, verify);
    index = Hnsw::load(*file);
  }
  py::dict sections;
  for (const std::string& name : extra) {
    const storage::Bytes bytes = file->section(name);
    sections[py::str(name)] = py::bytes(reinterpret_cast<const char*>(bytes.data), bytes.size);
  }
  return py::make_tuple(std::move(index), sections);
}

py::dict params(const Hnsw& index) {
  const graph::Params& p = index.params();
  py::dict values;
  values["dim"] = p.dim;
  values["metric"] = name_of(p.metric);
  values["M"] = p.m;
  values["ef_construction"] = p.ef_construction;
  values["seed"] = p.seed;
  return values;
}

}  // namespace

void register_graph(py::module_& m) {
  py::class_<Hnsw>(m, "Hnsw", "A hierarchical navigable small world graph over rows numbered in insertion order.")
      .def(py::init(&make), py::arg("dim"), py::arg("metric"), py::arg("M"), py::arg("ef_construction"), py::arg("seed"))
      .def("add", &add, py::arg("rows").noconvert(), py::arg("replaced").noconvert(), py::arg("threads"))
      .def("remove", &remove, py::arg("nodes").noconvert())
      .def("get", &get, py::arg("nodes").noconvert())
      .def("search", &search, py::arg("queries").noconvert(), py::arg("k"), py::arg("ef"), py::arg("allowed").noconvert() = py::none(),
           py::arg("bias").noconvert() = py::none(), py::arg("mode") = "automatic", py::arg("threads") = 0)
      .def("tombstones", &tombstones)
      .def("size", &count<&Hnsw::size>)
      .def("live", &count<&Hnsw::live>)
      .def("params", &params)
      .def("save", &save, py::arg("path"), py::arg("extra"))
      .def_static("load", &load, py::arg("path"), py::arg("extra"), py::arg("mmap") = true, py::arg("verify") = true);
}

}  // namespace nf::bindings
