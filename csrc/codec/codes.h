// Rows as int8 codes one after the other, for the graph: what a walk compares instead of float32 rows, in a quarter of the bytes.
//
// A row x less a common centre c is x - c = scale * code + rest. With a query's w = q - c coded the same way, its distance to the row is,
// up to a term that is the same for every row,
//     ip, cosine   -q . x     =  -c . (x - c) - w . (x - c)
//     l2           |q - x|^2  =  |x - c|^2 - 2 w . (x - c)
// so one integer product and two numbers of the row, `scale` and `add` (the first term), are enough. The centre keeps the codes' error
// small where rows share a large part: an offset from the origin, or a model whose vectors all point one way. The error of a product of unit
// vectors of 384 dimensions is about 4e-4. Products are integers and the two float32 operations on them are the same everywhere,
// so a graph built from these distances is the same on every target.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/metric.h"
#include "kernels/dispatch.h"

namespace nf::codec {

// The two numbers that stand behind a row's codes.
struct CodeTerms {
  float scale;
  float add;
};

// Codes of a row with zeros up to a whole number of AVX2 registers, so that no kernel has a tail to care for.
inline std::size_t code_width(std::size_t dim) { return (dim + 31) / 32 * 32; }
// Bytes of a coded row: its codes, then its CodeTerms.
inline std::size_t coded_bytes(std::size_t dim) { return code_width(dim) + sizeof(CodeTerms); }

inline CodeTerms terms_of(const std::int8_t* row, std::size_t width) {
  CodeTerms terms;
  std::memcpy(&terms, row + width, sizeof(terms));
  return terms;
}

// The larger float32 stands in for infinity and NaN, which overflow gives: every order of distances stays total.
constexpr float kFar = 3.402823466e+38f;

// What a walk measures from: codes, and the factor of a row's scale and product in its distance.
struct Probe {
  const std::int8_t* codes = nullptr;
  float factor = 0.0f;
};

// A row by both its codes: scale * (codes + fine / 254). Without fine codes (null) these are zeros.
struct FineCodes {
  const std::int8_t* codes = nullptr;
  const std::int8_t* fine = nullptr;
  float scale = 0.0f;
};

// Made once per job, on the caller's thread. The centre must outlive it.
class Coder {
 public:
  Coder(Metric metric, std::size_t dim, const float* centre)
      : gather_(kernels::dot_i8().gather), kernel_(kernels::code_i8()), metric_(metric), dim_(dim), width_(code_width(dim)), centre_(centre) {}

  std::size_t dim() const { return dim_; }
  std::size_t width() const { return width_; }
  const float* centre() const { return centre_; }

  // Writes coded_bytes(dim) bytes. `rest` has room for dim floats and becomes row - centre.
  void encode_row(const float* row, float* rest, std::int8_t* out) const;
  // Codes of a query, code_width(dim) bytes.
  Probe encode_query(const float* query, float* rest, std::int8_t* codes) const { return {codes, side() * code(query, rest, codes)}; }
  // The scale of a probe's codes.
  float scale_of(const Probe& probe) const { return probe.factor / side(); }
  // What `codes` leave out of `rest`, in 254ths of their scale: code_width(dim) further codes. Both together are within scale / 508 of `rest`.
  void encode_fine(const float* rest, float scale, const std::int8_t* codes, std::int8_t* fine) const;
  // The inner product of two rests by both codes of each (a's are both there), exact but for float64's last bits.
  double product(const FineCodes& a, const FineCodes& b) const;

  // The row that its codes say: dim floats.
  void decode(const FineCodes& row, float* out) const;

  // A coded row as a query.
  Probe probe_of(const std::int8_t* row) const { return {row, side() * terms_of(row, width_).scale}; }

  // Inner products of a query's codes with those of n coded rows.
  void products(const std::int8_t* codes, const std::int8_t* const* rows, std::size_t n, std::int32_t* out) const { gather_(codes, rows, n, width_, out); }

  // Distances to n coded rows; `products` has room for n.
  void distances(const Probe& probe, const std::int8_t* const* rows, std::size_t n, std::int32_t* products, float* out) const {
    gather_(probe.codes, rows, n, width_, products);
    for (std::size_t i = 0; i < n; ++i) {
      const CodeTerms terms = terms_of(rows[i], width_);
      const float distance = terms.add + probe.factor * terms.scale * static_cast<float>(products[i]);
      out[i] = distance < kFar ? distance : kFar;
    }
  }

 private:
  float side() const { return metric_ == Metric::l2 ? -2.0f : -1.0f; }
  float code(const float* row, float* rest, std::int8_t* codes) const;

  void (*gather_)(const std::int8_t*, const std::int8_t* const*, std::size_t, std::size_t, std::int32_t*);
  kernels::CodeI8 kernel_;
  Metric metric_;
  std::size_t dim_, width_;
  const float* centre_;
};

}  // namespace nf::codec
