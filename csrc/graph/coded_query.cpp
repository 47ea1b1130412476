#include "graph/coded_query.h"

#include <limits>


namespace nf::graph {
namespace {

double dot(const float* a, const float* b, std::size_t dim) {
  double sum = 0.0;
  for (std::size_t i = 0; i < dim; ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

}  // namespace

void CodedQuery::prepare(const codec::Coder& coder, Metric metric, const score::Query& query) {
  const std::size_t dim = coder.dim(), width = coder.width();
  rest.resize(dim);
  codes.resize(width);
  fine.resize(width);
  probe = coder.encode_query(query.scan, rest.data(), codes.data());
  coder.encode_fine(rest.data(), coder.scale_of(probe), codes.data(), fine.data());
  norm = query.norm;
  if (metric == Metric::l2) {
    square = dot(rest.data(), rest.data(), dim);
  } else {
    centre_product = dot(query.scan, coder.centre(), dim);
    square = metric == Metric::ip ? norm * norm : 1.0;
  }
}

double CodedQuery::score(const codec::Coder& coder, Metric metric, const std::int8_t* row, const std::int8_t* fine_row) const {
  const codec::CodeTerms terms = codec::terms_of(row, coder.width());
  const codec::FineCodes query{codes.data(), fine.data(), coder.scale_of(probe)};
  const double product = coder.product(query, {row, fine_row, terms.scale});
  double score = 0.0;
  if (metric == Metric::l2) {
    const double distance = square + static_cast<double>(terms.add) - 2.0 * product;
    score = 0.0 - (distance > 0.0 || distance != distance ? distance : 0.0);
  } else if (norm != 0.0) {
    score = centre_product - static_cast<double>(terms.add) + product;
  }
  return score == score ? score : -std::numeric_limits<double>::max();
}

}  // namespace nf::graph
