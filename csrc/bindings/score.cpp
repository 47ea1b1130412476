#include "score/borrowed.h"

#include "bindings/arrays.h"
#include "bindings/module.h"
#include "parallel/pool.h"
#include "score/gather.h"

namespace py = pybind11;

namespace nf::bindings {
namespace {

py::array_t<float> score_matrix(const Array<float>& queries, const Array<float>& vectors, const std::string& metric, int threads) {
  const MatrixView<float> q = matrix(queries, "queries");
  const MatrixView<float> r = matrix(vectors, q.cols, "vectors");
  const Metric chosen = metric_of(metric);
  const int count = parallel::resolve_threads(threads);
  py::array_t<float> out({q.rows, r.rows});
  float* const place = out.mutable_data();
  {
    const py::gil_scoped_release release;  // safe: borrowed and fresh arrays only, both held by this frame
    score::score_matrix(chosen, q, r, count, place);
  }
  return out;
}

py::array_t<float> score_candidates(const Array<float>& queries, const Array<float>& vectors, const Array<std::int64_t>& positions,
                                    const std::string& metric, int threads) {
  const MatrixView<float> q = matrix(queries, "queries");
  const MatrixView<float> r = matrix(vectors, q.cols, "vectors");
  const MatrixView<std::int64_t> slots = matrix(positions, "candidates");
  if (slots.rows != q.rows) throw InputError("candidates: one row for each query expected");
  const Metric chosen = metric_of(metric);
  const int count = parallel::resolve_threads(threads);
  py::array_t<float> out({slots.rows, slots.cols});
  float* const place = out.mutable_data();
  {
    const py::gil_scoped_release release;  // safe: as above
    score::gather_borrowed(chosen, r, score::Chosen{q, slots, r.rows, count}, place);
  }
  return out;
}

py::tuple topk(const Array<float>& queries, const Array<float>& vectors, std::size_t k, const std::string& metric, int threads) {
  const MatrixView<float> q = matrix(queries, "queries");
  const MatrixView<float> r = matrix(vectors, q.cols, "vectors");
  const Metric chosen = metric_of(metric);
  const int count = parallel::resolve_threads(threads);
  Found found(q.rows, k);
  std::int64_t* const slots = found.slots.mutable_data();
  float* const scores = found.scores.mutable_data();
  std::int64_t* const counts = found.counts.mutable_data();
  {
    const py::gil_scoped_release release;  // safe: as above
    score::topk(chosen, q, r, k, count, slots, scores, counts);
  }
  return found.as_tuple();
}

}  // namespace

void register_score(py::module_& m) {
  m.def("score_matrix", &score_matrix, py::arg("queries").noconvert(), py::arg("vectors").noconvert(), py::arg("metric"), py::arg("threads") = 0,
        "Scores of every query (nq, d) with every vector (n, d): float32 (nq, n).");
  m.def("score_candidates", &score_candidates, py::arg("queries").noconvert(), py::arg("vectors").noconvert(), py::arg("positions").noconvert(),
        py::arg("metric"), py::arg("threads") = 0, "The exact scores of chosen vectors (nq, m): float32 (nq, m), NaN where the position is -1.");
  m.def("topk", &topk, py::arg("queries").noconvert(), py::arg("vectors").noconvert(), py::arg("k"), py::arg("metric"), py::arg("threads") = 0,
        "The exact k best vectors of each query: positions (nq, k), scores (nq, k), counts (nq,).");
}

}  // namespace nf::bindings
