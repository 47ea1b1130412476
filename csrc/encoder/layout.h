// Where everything stands in a packed model: one block of bytes that begins with a header and may lie in memory or in a mapped file.
//
// The places follow from the header alone, so that a block is checked by computing them and comparing one length: no offset is ever read from
// it. The packing of weights (kernels/linear.h) is the same for every target.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "encoder/shape.h"

namespace nf::encoder {

// Counts up whenever the meaning of a packed model's bytes changes.
constexpr std::uint32_t kLayoutVersion = 1;
constexpr char kMagic[8] = {'N', 'F', 'E', 'N', 'C', 'O', 'D', 'E'};
constexpr std::size_t kMaxLayers = 128;

struct Header {
  char magic[8];
  std::uint32_t version;
  Precision precision;
  Shape shape;
  std::uint64_t bytes;  // of the whole
  Kind plan[kMaxLayers * kLinears];
};

// Places are in bytes from the beginning.
struct LinearPlace {
  Kind kind = Kind::f32;
  std::size_t panels = 0, depth = 0;
  std::size_t weights = 0, bias = 0;
  std::size_t scale = 0, sum = 0;     // int8 alone, as is
  std::size_t factor = 0;             // per input column: the linear layers whose input is the output of a LayerNorm
};

struct NormPlace {
  std::size_t gamma = 0, beta = 0;
};

struct LayerPlace {
  LinearPlace linear[kLinears];
  NormPlace norm[2];  // behind attention, behind the feed-forward part
};

struct Layout {
  Layout(const Shape& shape, Precision precision, const Kind* plan);

  std::size_t width, ffn;  // padded to whole units of depth
  bool wide_words;         // the word table is float32, else bfloat16
  std::size_t words = 0, positions = 0;
  NormPlace norm;
  std::vector<LayerPlace> layers;
  std::size_t bytes = 0;
};

// Throws InputError naming what is out of range: sizes that no model has, or a width that heads do not divide.
void check(const Shape& shape);
// The plan of a precision where none is given. int8 keeps query, key and value of the last third of the layers in bf16: all-MiniLM-L6-v2, mean cosine
// to float32 over 120 texts: all int8 0.9989, these two in bf16 0.9992, three 0.9994, all six 0.9995; any other kind of layer gains less.
std::vector<Kind> default_plan(const Shape& shape, Precision precision);
// Throws InputError where a plan does not fit: its length, or a kind that the precision does not have.
void check(const Shape& shape, Precision precision, const std::vector<Kind>& plan);

}  // namespace nf::encoder
