// From float32 weights by name to one packed block.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <unordered_map>

#include "base/aligned.h"
#include "base/bf16.h"
#include "encoder/model.h"
#include "kernels/linear.h"

namespace nf::encoder {
namespace {

using kernels::kPanelColumns;

constexpr double kLog2E = 1.4426950408889634;

// The tensors by name, each checked when it is asked for.
class Source {
 public:
  explicit Source(const std::vector<Tensor>& tensors) {
    for (const Tensor& tensor : tensors) by_name_[tensor.name] = &tensor;
  }

  const float* get(const std::string& name, std::size_t rows, std::size_t cols) const {
    const auto found = by_name_.find(name);
    if (found == by_name_.end()) throw InputError("weights: no tensor '" + name + "'; the model folder is incomplete or of another architecture");
    const Tensor& tensor = *found->second;
    if (tensor.rows != rows || tensor.cols != cols) {
      throw InputError("weights: tensor '" + name + "' is (" + std::to_string(tensor.rows) + ", " + std::to_string(tensor.cols) + "), (" +
                       std::to_string(rows) + ", " + std::to_string(cols) + ") expected from config.json");
    }
    for (std::size_t i = 0; i < rows * cols; ++i) {
      if (!std::isfinite(tensor.data[i])) throw InputError("weights: tensor '" + name + "' holds NaN or infinity; take another copy of the model");
    }
    return tensor.data;
  }
  const float* vector(const std::string& name, std::size_t count) const { return get(name, 1, count); }

 private:
  std::unordered_map<std::string, const Tensor*> by_name_;
};

// A weight matrix (columns, depth) of the model, and where its part begins among the packed columns.
struct Part {
  const float* weights;
  const float* bias;
  std::size_t columns, first;
  double factor;  // on weights and bias
};

class Packer {
 public:
  Packer(const Shape& shape, const Layout& layout, const Source& source, std::uint8_t* blob)
      : shape_(shape), layout_(layout), source_(source), blob_(blob) {}

  void pack() {
    embeddings();
    NormPlace before = layout_.norm;
    for (std::size_t i = 0; i < shape_.layers; ++i) {
      layer("encoder.layer." + std::to_string(i) + ".", layout_.layers[i], before);
      before = layout_.layers[i].norm[1];
    }
  }

 private:
  template <typename T>
  T* at(std::size_t place) {
    return reinterpret_cast<T*>(blob_ + place);
  }

  void embeddings() {
    const std::size_t width = shape_.width;
    const float* const words = source_.get("embeddings.word_embeddings.weight", shape_.vocab, width);
    const float* const positions = source_.get("embeddings.position_embeddings.weight", shape_.positions, width);
    const float* const types = source_.get("embeddings.token_type_embeddings.weight", shape_.types, width);
    for (std::size_t i = 0; i < shape_.vocab; ++i) {
      for (std::size_t j = 0; j < width; ++j) {
        const std::size_t place = i * layout_.width + j;
        if (layout_.wide_words) {
          at<float>(layout_.words)[place] = words[i * width + j];
        } else {
          at<std::uint16_t>(layout_.words)[place] = to_bf16(words[i * width + j]);
        }
      }
    }
    // Every token is of type 0: its row is added once and for all.
    for (std::size_t i = 0; i < shape_.positions; ++i) {
      for (std::size_t j = 0; j < width; ++j) at<float>(layout_.positions)[i * layout_.width + j] = positions[i * width + j] + types[j];
    }
    norm("embeddings.LayerNorm", layout_.norm);
  }

  void layer(const std::string& name, const LayerPlace& place, const NormPlace& before) {
    const std::size_t width = shape_.width, padded = layout_.width;
    const std::string self = name + "attention.self.", output = name + "attention.output.";
    const double to_exponent = kLog2E / std::sqrt(static_cast<double>(width / shape_.heads));
    linear(place.linear[kQkv], {part(self + "query", width, width, 0, to_exponent), part(self + "key", width, width, padded, 1.0),
                                part(self + "value", width, width, 2 * padded, 1.0)}, width, &before);
    linear(place.linear[kAttentionOutput], {part(output + "dense", width, width, 0, 1.0)}, width, nullptr);
    norm(output + "LayerNorm", place.norm[0]);
    linear(place.linear[kUp], {part(name + "intermediate.dense", shape_.ffn, width, 0, 1.0)}, width, &place.norm[0]);
    linear(place.linear[kDown], {part(name + "output.dense", width, shape_.ffn, 0, 1.0)}, shape_.ffn, nullptr);
    norm(name + "output.LayerNorm", place.norm[1]);
  }

  Part part(const std::string& name, std::size_t columns, std::size_t depth, std::size_t first, double factor) const {
    return {source_.get(name + ".weight", columns, depth), source_.vector(name + ".bias", columns), columns, first, factor};
  }

  void norm(const std::string& name, const NormPlace& place) {
    const std::size_t bytes = shape_.width * sizeof(float);
    std::memcpy(at<float>(place.gamma), source_.vector(name + ".weight", shape_.width), bytes);
    std::memcpy(at<float>(place.beta), source_.vector(name + ".bias", shape_.width), bytes);
  }

  // `behind` is the LayerNorm whose output the layer reads, if any.
  void linear(const LinearPlace& place, const std::vector<Part>& parts, std::size_t depth, const NormPlace* behind) {
    std::vector<double> inverse(depth, 1.0), row(depth);
    if (place.kind == Kind::int8 && behind != nullptr) spread(place, *behind, depth, inverse);
    for (const Part& part : parts) {
      for (std::size_t c = 0; c < part.columns; ++c) {
        for (std::size_t k = 0; k < depth; ++k) row[k] = part.factor * static_cast<double>(part.weights[c * depth + k]) * inverse[k];
        const std::size_t column = part.first + c;
        at<float>(place.bias)[column] = static_cast<float>(part.factor * static_cast<double>(part.bias[c]));
        if (place.kind == Kind::f32) {
          store<float>(place, column, row, 1, [](double value) { return static_cast<float>(value); });
        } else if (place.kind == Kind::bf16) {
          store<std::uint16_t>(place, column, row, 2, [](double value) { return to_bf16(static_cast<float>(value)); });
        } else {
          store_codes(place, column, row);
        }
      }
    }
  }

  // Columns of a LayerNorm's output whose gamma and beta are large would leave the others few codes: part of their size moves into the weights.
  void spread(const LinearPlace& place, const NormPlace& behind, std::size_t depth, std::vector<double>& inverse) {
    float* const factor = at<float>(place.factor);
    std::fill(factor, factor + place.depth, 1.0f);
    double mean = 0.0;
    std::vector<double> size(depth);
    for (std::size_t k = 0; k < depth; ++k) {
      size[k] = 3.0 * std::fabs(static_cast<double>(at<float>(behind.gamma)[k])) + std::fabs(static_cast<double>(at<float>(behind.beta)[k]));
      mean += size[k] / static_cast<double>(depth);
    }
    for (std::size_t k = 0; k < depth; ++k) {
      if (!(size[k] > 1e-6 * mean)) continue;
      factor[k] = static_cast<float>(std::pow(size[k] / mean, -kSpread));
      inverse[k] = 1.0 / static_cast<double>(factor[k]);
    }
  }

  template <typename Value, typename Convert>
  void store(const LinearPlace& place, std::size_t column, const std::vector<double>& row, std::size_t together, const Convert& convert) {
    Value* const panel = at<Value>(place.weights) + column / kPanelColumns * kPanelColumns * place.depth;
    for (std::size_t k = 0; k < row.size(); ++k) panel[(k / together * kPanelColumns + column % kPanelColumns) * together + k % together] = convert(row[k]);
  }

  void store_codes(const LinearPlace& place, std::size_t column, const std::vector<double>& row) {
    double peak = 0.0;
    for (const double value : row) peak = std::max(peak, std::fabs(value));
    const float scale = static_cast<float>(peak / 127.0);
    const double step = scale > 0.0f ? 1.0 / static_cast<double>(scale) : 0.0;
    std::int64_t sum = 0;
    store<std::int8_t>(place, column, row, 4, [&](double value) {
      const auto code = static_cast<std::int8_t>(std::max(-127.0, std::min(127.0, std::nearbyint(value * step))));
      sum += code;
      return code;
    });
    at<float>(place.scale)[column] = scale;
    at<float>(place.sum)[column] = static_cast<float>(static_cast<double>(scale) * static_cast<double>(sum));
  }

  static constexpr double kSpread = 0.5;

  const Shape& shape_;
  const Layout& layout_;
  const Source& source_;
  std::uint8_t* const blob_;
};

}  // namespace

Model Model::pack(const Shape& shape, const std::vector<Tensor>& tensors, Precision precision, std::vector<Kind> plan) {
  check(shape);
  if (plan.empty()) plan = default_plan(shape, precision);
  check(shape, precision, plan);
  const Layout layout(shape, precision, plan.data());
  auto owner = std::make_shared<AlignedBuffer<std::uint8_t>>(layout.bytes);
  owner->zero();
  Header header = {};
  std::memcpy(header.magic, kMagic, sizeof(header.magic));
  header.version = kLayoutVersion;
  header.precision = precision;
  header.shape = shape;
  header.bytes = layout.bytes;
  std::copy(plan.begin(), plan.end(), header.plan);
  std::memcpy(owner->data(), &header, sizeof(header));
  Packer(shape, layout, Source(tensors), owner->data()).pack();
  const std::uint8_t* const blob = owner->data();
  return Model(blob, std::move(owner));
}

}  // namespace nf::encoder
