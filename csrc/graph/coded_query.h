// A query as a graph's codes see it (codec/codes.h): by two codes of each value, so that its products with coded rows miss it by a 508th of a step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/metric.h"
#include "codec/codes.h"
#include "score/plan.h"

namespace nf::graph {

struct CodedQuery {
  void prepare(const codec::Coder& coder, Metric metric, const score::Query& query);

  // The score is this less the distance by codes.
  double base(Metric metric) const { return metric == Metric::l2 ? -square : centre_product; }

  // The score of a coded row, by both codes of the query and those of the row there are (`fine` may be null). Of a damaged row, whose terms are
  // no numbers, the least there is: every order stays total.
  double score(const codec::Coder& coder, Metric metric, const std::int8_t* row, const std::int8_t* fine_row) const;

  double norm = 0.0, centre_product = 0.0, square = 0.0;  // |q| as given, q . c; l2: |q - c|^2, otherwise |q|^2 as searched for
  codec::Probe probe;
  std::vector<float> rest;  // q - c
  std::vector<std::int8_t> codes, fine;
};

}  // namespace nf::graph
