#include "bindings/graph_search.h"

namespace nf::bindings {
namespace {

template <typename T>
MatrixView<T> aligned_with(const Array<T>& array, std::size_t nq, std::size_t limit, const char* what) {
  const MatrixView<T> view = matrix(array, limit, what);
  if (view.rows != 1 && view.rows != nq) throw InputError(std::string(what) + ": one row, or one for each query, expected");
  return view;
}

graph::Mode mode_of(const std::string& name) {
  if (name == "automatic") return graph::Mode::automatic;
  if (name == "walk") return graph::Mode::walk;
  if (name == "hop") return graph::Mode::hop;
  if (name == "scan") return graph::Mode::scan;
  throw InputError("mode: '" + name + "' given, 'automatic', 'walk', 'hop' or 'scan' expected");
}

}  // namespace

graph::Request request_of(MatrixView<float> queries, std::size_t k, std::size_t limit, std::size_t ef, const OptionalMask& mask, const OptionalBias& bias,
                          int threads, const std::string& mode, double step, const OptionalSkip& skip) {
  graph::Request request;
  request.queries = queries.data;
  request.nq = queries.rows;
  request.k = k;
  request.ef = ef;
  request.limit = limit;
  if (mask) {
    const MatrixView<bool> given = aligned_with(*mask, queries.rows, limit, "filter");
    request.mask = MatrixView<std::uint8_t>(reinterpret_cast<const std::uint8_t*>(given.data), given.rows, given.cols);
  }
  if (bias) request.bias = aligned_with(*bias, queries.rows, limit, "bias");
  request.mode = mode_of(mode);
  if (!(step >= 0.0)) throw InputError("step: a number of at least 0 expected");
  request.step = step;
  if (skip) {
    if (static_cast<std::size_t>(skip->size()) != queries.rows) throw InputError("skip: one slot for each query expected");
    request.skip = skip->data();
  }
  request.threads = parallel::resolve_threads(threads);
  return request;
}

pybind11::dict dict_of(const graph::Params& params) {
  pybind11::dict values;
  values["dim"] = params.dim;
  values["metric"] = name_of(params.metric);
  values["M"] = params.m;
  values["ef_construction"] = params.ef_construction;
  values["seed"] = params.seed;
  return values;
}

}  // namespace nf::bindings
