// Single kernels of the active target, for tests and benchmarks.
#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/status.h"
#include "bindings/arrays.h"
#include "bindings/module.h"
#include "codec/packed.h"
#include "codec/rotation.h"
#include "kernels/dispatch.h"
#include "score/signs.h"

namespace py = pybind11;

namespace nf::bindings {
namespace {

// The shapes are checked, and the arrays are borrowed: C-contiguous arrays of exactly this dtype, at any alignment.
template <typename T>
void check_pair(const Array<T>& q, const Array<T>& r) {
  if (q.ndim() != 2 || r.ndim() != 2 || q.shape(1) != r.shape(1)) throw InputError("two matrices with the same number of columns expected");
}

template <typename In, typename Out, typename Kernel>
py::array_t<Out> block(const Kernel& kernel, const Array<In>& q, const Array<In>& r) {
  check_pair(q, r);
  py::array_t<Out> out({q.shape(0), r.shape(0)});
  const std::size_t nq = static_cast<std::size_t>(q.shape(0)), nr = static_cast<std::size_t>(r.shape(0)), dim = static_cast<std::size_t>(q.shape(1));
  const In* qp = q.data();
  const In* rp = r.data();
  Out* op = out.mutable_data();
  {
    const py::gil_scoped_release release;  // safe: only borrowed memory of arrays that the caller's frame holds
    kernel.block(qp, dim, nq, rp, dim, nr, dim, op, nr);
  }
  return out;
}

template <typename In, typename Out, typename Kernel>
py::array_t<Out> pairs(const Kernel& kernel, const Array<In>& q, const Array<In>& r) {
  check_pair(q, r);
  if (q.shape(0) != r.shape(0)) throw InputError("two matrices with the same number of rows expected");
  py::array_t<Out> out(q.shape(0));
  const std::size_t dim = static_cast<std::size_t>(q.shape(1));
  for (py::ssize_t i = 0; i < q.shape(0); ++i) out.mutable_data()[i] = kernel.pair(q.data() + i * q.shape(1), r.data() + i * q.shape(1), dim);
  return out;
}

template <typename In, typename Out, typename Kernel>
py::array_t<Out> gather(const Kernel& kernel, const Array<In>& q, const Array<In>& r) {
  check_pair(q, r);
  if (q.shape(0) != 1) throw InputError("one query expected");
  const std::size_t n = static_cast<std::size_t>(r.shape(0)), dim = static_cast<std::size_t>(q.shape(1));
  std::vector<const In*> rows(n);
  for (std::size_t i = 0; i < n; ++i) rows[i] = r.data() + i * dim;
  py::array_t<Out> out(r.shape(0));
  kernel.gather(q.data(), rows.data(), n, dim, out.mutable_data());
  return out;
}

template <typename In, typename Out, typename Get>
void define(py::module_& m, const std::string& name, Get get, const char* what) {
  const std::string doc = what;
  m.def((name + "_block").c_str(), [get](const Array<In>& q, const Array<In>& r) { return block<In, Out>(get(), q, r); },
        py::arg("queries").noconvert(), py::arg("rows").noconvert(), (doc + " of every query (nq, d) with every row (n, d): (nq, n).").c_str());
  m.def((name + "_pairs").c_str(), [get](const Array<In>& q, const Array<In>& r) { return pairs<In, Out>(get(), q, r); },
        py::arg("queries").noconvert(), py::arg("rows").noconvert(), (doc + " of query i (n, d) with row i (n, d): (n,).").c_str());
  m.def((name + "_gather").c_str(), [get](const Array<In>& q, const Array<In>& r) { return gather<In, Out>(get(), q, r); },
        py::arg("query").noconvert(), py::arg("rows").noconvert(), (doc + " of one query (1, d) with rows given by pointers: (n,).").c_str());
}

// Packs plain codes as the scan wants them and runs it: one row (query, row, product, low product) for each hit. Query codes must fit the active target's.
py::array_t<std::int64_t> scan_i8(const Array<std::int16_t>& queries, const Array<std::int8_t>& low_codes, const Array<std::int8_t>& rows, const Array<float>& scale,
                                  const Array<float>& error, const Array<float>& add, float factor, float slack, float cut, float fine_cut) {
  const MatrixView<std::int16_t> q = matrix(queries, "queries");
  const MatrixView<std::int8_t> l = matrix(low_codes, q.cols, "low_codes"), r = matrix(rows, q.cols, "rows");
  if (l.rows != q.rows) throw InputError("low_codes: one row for each query expected");
  const std::size_t groups = codec::packed_groups(q.cols), width = groups * codec::kPackDims, places = codec::packed_blocks(r.rows) * codec::kPackRows;
  if (static_cast<std::size_t>(scale.size()) != r.rows || static_cast<std::size_t>(error.size()) != r.rows || static_cast<std::size_t>(add.size()) != r.rows) {
    throw InputError("scale, error and add: one value for each row expected");
  }
  std::vector<std::int8_t> packed(codec::packed_bytes(r.rows, q.cols), 0);
  const kernels::ScanI8& kernel = kernels::scan_i8();
  const std::size_t stride = (width + kernels::kScanStride - 1) / kernels::kScanStride * kernels::kScanStride;
  std::vector<std::int16_t> wide(q.rows * stride, 0);
  std::vector<std::int8_t> narrow(q.rows * stride, 0), low(q.rows * stride, 0);
  std::vector<float> terms(3 * places, 0.0f);
  for (std::size_t j = 0; j < r.rows; ++j) {
    for (std::size_t i = 0; i < r.cols; ++i) {
      const std::size_t group = j / codec::kPackRows * groups + i / codec::kPackDims;
      packed[(group * codec::kPackRows + j % codec::kPackRows) * codec::kPackDims + i % codec::kPackDims] = r.row(j)[i];
    }
    terms[j] = scale.data()[j];
    terms[places + j] = error.data()[j];
    terms[2 * places + j] = add.data()[j];
  }
  std::vector<kernels::ScanI8Query> each;
  for (std::size_t i = 0; i < q.rows; ++i) {
    std::int32_t sum = 0, low_sum = 0;
    for (std::size_t j = 0; j < q.cols; ++j) {
      const std::int16_t code = q.row(i)[j];
      if (std::abs(static_cast<int>(code)) > kernel.code_max) {
        throw InputError("queries: code " + std::to_string(code) + " given, at most " + std::to_string(kernel.code_max) + " in size expected by target " +
                         kernel.target());
      }
      wide[i * stride + j] = code;
      narrow[i * stride + j] = static_cast<std::int8_t>(code);
      low[i * stride + j] = l.row(i)[j];
      sum += code;
      low_sum += l.row(i)[j];
    }
    each.push_back({factor, slack, cut, fine_cut, sum, low_sum, terms.data() + 2 * places});
  }
  const kernels::ScanI8Rows packed_rows{packed.data(), places / codec::kPackRows, groups, terms.data(), terms.data() + places};
  std::vector<kernels::ScanI8Hit> hits(q.rows * places);
  const kernels::ScanI8Queries coded{wide.data(), narrow.data(), low.data(), stride, q.rows, each.data()};
  const std::size_t found = kernel.scan(&coded, &packed_rows, hits.data());
  py::array_t<std::int64_t> out({found, std::size_t{4}});
  for (std::size_t h = 0; h < found; ++h) {
    out.mutable_at(h, 0) = hits[h].query;
    out.mutable_at(h, 1) = hits[h].row;
    out.mutable_at(h, 2) = hits[h].product;
    out.mutable_at(h, 3) = hits[h].low;
  }
  return out;
}

// Packs sign bits (n, groups, 4) as the one-bit scan wants them and runs it: one row (query, row, sum) for each hit.
py::array_t<std::int64_t> scan_1bit(const Array<std::uint8_t>& tables, const Array<std::uint8_t>& patterns, const Array<float>& factor,
                                    const Array<float>& error, const Array<float>& add, float step, float shift, float slack, float cut) {
  const MatrixView<std::uint8_t> r = matrix(patterns, "patterns");
  const std::size_t groups = r.cols, rows = static_cast<std::size_t>(factor.size());
  const MatrixView<std::uint8_t> t = matrix(tables, groups * kernels::kSignGroupBytes, "tables");
  if (groups % kernels::kSignGroupUnit != 0 || r.rows != rows || static_cast<std::size_t>(error.size()) != rows ||
      static_cast<std::size_t>(add.size()) != rows || rows % kernels::kSignBlockRows != 0) {
    throw InputError("factor, error and add: one value for each row of whole blocks, and whole units of groups, expected");
  }
  std::vector<std::uint8_t> packed(rows * groups / 2, 0);
  for (std::size_t j = 0; j < rows; ++j) {
    const std::size_t row = j % kernels::kSignBlockRows, block = j / kernels::kSignBlockRows * groups;
    for (std::size_t g = 0; g < groups; ++g) {
      const unsigned half = static_cast<unsigned>(row / kernels::kSignGroupBytes * 4);
      std::uint8_t& byte = packed[(block + g) * kernels::kSignGroupBytes + row % kernels::kSignGroupBytes];
      byte = static_cast<std::uint8_t>(byte | (r.row(j)[g] & 15u) << half);
    }
  }
  std::vector<kernels::Scan1BitQuery> each;
  for (std::size_t i = 0; i < t.rows; ++i) each.push_back({t.row(i), step, shift, slack, cut, add.data()});
  const kernels::Scan1BitRows given{packed.data(), rows / kernels::kSignBlockRows, groups, factor.data(), error.data()};
  std::vector<kernels::Scan1BitHit> hits(t.rows * rows);
  const std::size_t found = kernels::scan_1bit().scan(each.data(), t.rows, &given, hits.data());
  py::array_t<std::int64_t> out({found, std::size_t{3}});
  for (std::size_t h = 0; h < found; ++h) {
    out.mutable_at(h, 0) = hits[h].query;
    out.mutable_at(h, 1) = hits[h].row;
    out.mutable_at(h, 2) = hits[h].sum;
  }
  return out;
}

// The rotation of codec/rotation.h applied to rows (n, d).
py::array_t<float> rotate(const Array<float>& rows, std::uint64_t seed) {
  const MatrixView<float> r = matrix(rows, "rows");
  py::array_t<float> out({r.rows, r.cols});
  codec::Rotation(r.cols, seed, 1).apply(r.data, r.rows, out.mutable_data());
  return out;
}

}  // namespace

void register_kernels(py::module_& m) {
  define<float, float>(m, "dot_f32", &kernels::dot_f32, "Inner products");
  define<float, float>(m, "l2sqr_f32", &kernels::l2sqr_f32, "Squared distances");
  define<std::int8_t, std::int32_t>(
      m, "dot_i8", [] { return kernels::dot_i8(); }, "Exact integer inner products");
  m.def("scan_i8", &scan_i8, py::arg("queries").noconvert(), py::arg("low_codes").noconvert(), py::arg("rows").noconvert(), py::arg("scale").noconvert(),
        py::arg("error").noconvert(), py::arg("add").noconvert(), py::arg("factor"), py::arg("slack"), py::arg("cut"), py::arg("fine_cut"),
        "Pairs with factor * scale * product + slack * error + add >= cut, and, where the active target takes low codes, the same with "
        "product + low / 254 and fine_cut: query, row, product, low (m, 4); rows beyond the given ones are zero.");
  m.def("scan_i8_code_max", [] { return kernels::scan_i8().code_max; }, "The largest query code that the active target takes: 127 or 32767.");
  m.def("scan_1bit", &scan_1bit, py::arg("tables").noconvert(), py::arg("patterns").noconvert(), py::arg("factor").noconvert(),
        py::arg("error").noconvert(), py::arg("add").noconvert(), py::arg("step"), py::arg("shift"), py::arg("slack"), py::arg("cut"),
        "Pairs with factor * (step * sum + shift) + slack * error + add >= cut, sums of the entries in tables (nq, 16 groups) that patterns (n, groups) "
        "choose: query, row, sum (m, 3).");
  m.def("rotate", &rotate, py::arg("rows").noconvert(), py::arg("seed"), "Rows (n, d) under the random rotation of this seed: (n, d).");
  m.def("sphere_reach", &score::sphere_reach, py::arg("dims"), py::arg("chance"),
        "What one coordinate of a random unit vector exceeds with at most this chance.");
}

}  // namespace nf::bindings
