#include "encoder/layout.h"

#include <string>

#include "base/aligned.h"
#include "base/status.h"
#include "kernels/linear.h"

namespace nf::encoder {
namespace {

using kernels::kDepthUnit;
using kernels::kPanelColumns;

std::size_t padded(std::size_t count) { return (count + kDepthUnit - 1) / kDepthUnit * kDepthUnit; }

// Hands out places one behind the other, each on a cache line.
class Places {
 public:
  explicit Places(std::size_t begin) : end_(begin) {}
  std::size_t take(std::size_t bytes) {
    const std::size_t at = (end_ + kCacheLine - 1) / kCacheLine * kCacheLine;
    end_ = at + bytes;
    return at;
  }
  std::size_t end() const { return (end_ + kCacheLine - 1) / kCacheLine * kCacheLine; }

 private:
  std::size_t end_;
};

std::size_t value_bytes(Kind kind) { return kind == Kind::f32 ? 4 : kind == Kind::bf16 ? 2 : 1; }

LinearPlace place_linear(Places& places, Kind kind, std::size_t columns, std::size_t depth, bool behind_norm) {
  LinearPlace linear;
  linear.kind = kind;
  linear.panels = columns / kPanelColumns;
  linear.depth = depth;
  linear.weights = places.take(columns * depth * value_bytes(kind));
  linear.bias = places.take(columns * sizeof(float));
  if (kind != Kind::int8) return linear;
  linear.scale = places.take(columns * sizeof(float));
  linear.sum = places.take(columns * sizeof(float));
  if (behind_norm) linear.factor = places.take(depth * sizeof(float));
  return linear;
}

NormPlace place_norm(Places& places, std::size_t width) {
  NormPlace norm;
  norm.gamma = places.take(width * sizeof(float));
  norm.beta = places.take(width * sizeof(float));
  return norm;
}

void check_range(const char* name, std::size_t value, std::size_t least, std::size_t most) {
  if (value < least || value > most) {
    throw InputError(std::string("encoder shape: ") + name + " " + std::to_string(value) + " given, " + std::to_string(least) + " to " +
                     std::to_string(most) + " expected");
  }
}

}  // namespace

Layout::Layout(const Shape& shape, Precision precision, const Kind* plan)
    : width(padded(shape.width)), ffn(padded(shape.ffn)), wide_words(precision == Precision::fp32) {
  Places places(sizeof(Header));
  words = places.take(shape.vocab * width * (wide_words ? sizeof(float) : sizeof(std::uint16_t)));
  positions = places.take(shape.positions * width * sizeof(float));
  norm = place_norm(places, width);
  for (std::size_t i = 0; i < shape.layers; ++i, plan += kLinears) {
    LayerPlace layer;
    layer.linear[kQkv] = place_linear(places, plan[kQkv], 3 * width, width, true);
    layer.linear[kAttentionOutput] = place_linear(places, plan[kAttentionOutput], width, width, false);
    layer.norm[0] = place_norm(places, width);
    layer.linear[kUp] = place_linear(places, plan[kUp], ffn, width, true);
    layer.linear[kDown] = place_linear(places, plan[kDown], width, ffn, false);
    layer.norm[1] = place_norm(places, width);
    layers.push_back(layer);
  }
  bytes = places.end();
}

void check(const Shape& shape) {
  check_range("layers", shape.layers, 1, kMaxLayers);
  check_range("width", shape.width, 1, 16384);
  check_range("heads", shape.heads, 1, 1024);
  check_range("ffn", shape.ffn, 1, 65536);
  check_range("vocab", shape.vocab, 1, 1u << 24);
  check_range("positions", shape.positions, 1, 1u << 20);
  check_range("types", shape.types, 1, 1024);
  if (shape.width % shape.heads != 0 || shape.width / shape.heads > 256) {
    throw InputError("encoder shape: width " + std::to_string(shape.width) + " in " + std::to_string(shape.heads) +
                     " heads given, equal heads of at most 256 columns expected");
  }
  if (!(shape.eps >= 1e-38f && shape.eps <= 1.0f)) {
    throw InputError("encoder shape: eps " + std::to_string(shape.eps) + " given, more than 0 and at most 1 expected");
  }
  if (shape.pooling > Pooling::last || shape.normalize > 1) throw InputError("encoder shape: unknown pooling or normalization");
}

std::vector<Kind> default_plan(const Shape& shape, Precision precision) {
  const Kind kind = precision == Precision::fp32 ? Kind::f32 : precision == Precision::bf16 ? Kind::bf16 : Kind::int8;
  std::vector<Kind> plan(shape.layers * kLinears, kind);
  if (precision != Precision::int8) return plan;
  for (std::size_t i = (2 * shape.layers + 2) / 3; i < shape.layers; ++i) plan[i * kLinears + kQkv] = Kind::bf16;
  return plan;
}

void check(const Shape& shape, Precision precision, const std::vector<Kind>& plan) {
  if (plan.size() != shape.layers * kLinears) {
    throw InputError("plan: " + std::to_string(plan.size()) + " linear layers given, " + std::to_string(shape.layers * kLinears) + " expected");
  }
  for (const Kind kind : plan) {
    const bool fits = precision == Precision::fp32 ? kind == Kind::f32
                      : precision == Precision::bf16 ? kind == Kind::bf16
                                                     : kind == Kind::int8 || kind == Kind::bf16;
    if (!fits) throw InputError("plan: fp32 and bf16 models have one kind of product; int8 models have int8 and bf16");
  }
}

}  // namespace nf::encoder
