#include "encoder/forward.h"

#include <algorithm>
#include <cstring>

#include "base/bf16.h"
#include "encoder/pooling.h"

namespace nf::encoder {
namespace {

using kernels::LinearOut;

std::size_t bytes_of(Kind kind) { return kind == Kind::f32 ? 4 : kind == Kind::bf16 ? 2 : 1; }

template <typename T>
T* moved(void* base, std::size_t values) {
  return static_cast<T*>(base) + values;
}

}  // namespace

void Forward::spent(StageTimes::Stage stage) {
  if (times_ == nullptr) return;
  const Clock::time_point now = Clock::now();
  times_->seconds[stage] += std::chrono::duration<double>(now - last_).count();
  last_ = now;
}

void Forward::run(const Chunk& chunk) {
  if (times_ != nullptr) last_ = Clock::now();
  embed(chunk);
  member_.sync();
  for (std::size_t i = 0; i < model_.layout().layers.size(); ++i) layer(chunk, i);
  if (member_.rank == 0) pool(chunk);
  spent(StageTimes::pool);
}

// What a linear layer reads of the residual stream: float32 as it is, or the codes or halves that the LayerNorm before wrote.
const void* Forward::stream(const LinearPlace& place, std::size_t row) const {
  const std::size_t at = row * model_.layout().width;
  if (place.kind == Kind::f32) return memory_.x + at;
  if (place.kind == Kind::bf16) return memory_.halves + at;
  return memory_.codes + at;
}

void Forward::linear(const LinearPlace& place, std::size_t rows, const void* input, const Steps& steps, void* out,
                     std::size_t out_stride, LinearOut kind) {
  // Pairs of panels: the tile kernels take two at a time.
  const std::size_t first = member_.begin(place.panels, 2), panels = member_.end(place.panels, 2) - first, column = first * kernels::kPanelColumns;
  if (panels == 0) return;
  const bool wide = kind == LinearOut::f32 || kind == LinearOut::gelu_f32;
  void* const to = static_cast<std::uint8_t*>(out) + column * (wide ? sizeof(float) : sizeof(std::uint16_t));
  const float* const bias = model_.at<float>(place.bias) + column;
  const std::uint8_t* const weights = model_.at<std::uint8_t>(place.weights) + column * place.depth * bytes_of(place.kind);
  if (place.kind == Kind::int8) {
    const kernels::LinearI8Job job{static_cast<const std::uint8_t*>(input), place.depth, steps.scale, steps.low, rows, reinterpret_cast<const std::int8_t*>(weights), place.depth, panels,
                                   model_.at<float>(place.scale) + column, model_.at<float>(place.sum) + column, bias, to, out_stride};
    kind == LinearOut::f16 ? kernels_.linear_i8->run_f16(&job) : kernels_.linear_i8->run(&job, kind);
  } else if (place.kind == Kind::bf16) {
    const kernels::LinearBf16Job job{static_cast<const std::uint16_t*>(input), place.depth, rows, reinterpret_cast<const std::uint16_t*>(weights), place.depth, panels, bias, to, out_stride};
    kernels_.linear_bf16->run(&job, kind);
  } else {
    const kernels::LinearF32Job job{static_cast<const float*>(input), place.depth, rows, reinterpret_cast<const float*>(weights), place.depth, panels, bias, static_cast<float*>(to), out_stride};
    kernels_.linear_f32->run(&job, kind);
  }
}

// LayerNorm of x + add, in the form that `next` reads.
void Forward::norm(const NormPlace& place, std::size_t row, std::size_t rows, const float* add, const LinearPlace* next) {
  const std::size_t width = model_.layout().width;
  kernels::RowCodes out{nullptr, nullptr, nullptr, nullptr, width, nullptr};
  if (next != nullptr && next->kind == Kind::int8) {
    out.codes = memory_.codes + row * width;
    out.scale = memory_.steps.scale + row;
    out.low = memory_.steps.low + row;
    out.factor = model_.at<float>(next->factor);
  } else if (next != nullptr && next->kind == Kind::bf16) {
    out.halves = memory_.halves + row * width;
  }
  const kernels::NormJob job{memory_.x + row * width, width, add, width, rows, model_.shape().width, width,
                             model_.at<float>(place.gamma), model_.at<float>(place.beta), model_.shape().eps, out};
  kernels_.rows->norm(&job);
}

void Forward::embed(const Chunk& chunk) {
  const Layout& layout = model_.layout();
  const std::size_t tokens = chunk.tokens(), width = layout.width, first = member_.begin(tokens), last = member_.end(tokens);
  const LinearPlace* const next = &layout.layers[0].linear[kQkv];
  for (std::size_t i = 0; i < chunk.texts; ++i) {
    const std::size_t start = static_cast<std::size_t>(chunk.offsets[i] - chunk.offsets[0]);
    const std::size_t begin = std::max(first, start), end = std::min(last, static_cast<std::size_t>(chunk.offsets[i + 1] - chunk.offsets[0]));
    if (begin >= end) continue;
    for (std::size_t row = begin; row < end; ++row) {
      const std::size_t word = static_cast<std::size_t>(chunk.ids[row]) * width;
      float* const x = memory_.x + row * width;
      if (layout.wide_words) {
        std::memcpy(x, model_.at<float>(layout.words) + word, width * sizeof(float));
      } else {
        const std::uint16_t* const halves = model_.at<std::uint16_t>(layout.words) + word;
        for (std::size_t j = 0; j < width; ++j) x[j] = from_bf16(halves[j]);
      }
    }
    norm(layout.norm, begin, end - begin, model_.at<float>(layout.positions) + (begin - start) * width, next);
  }
  // Attention writes the model's own columns alone.
  const std::size_t value = model_.precision() == Precision::fp32 ? sizeof(float) : sizeof(std::uint16_t);
  if (width != model_.shape().width && member_.rank == 0) std::memset(memory_.context, 0, tokens * width * value);
  spent(StageTimes::embed);
}

void Forward::layer(const Chunk& chunk, std::size_t index) {
  const Layout& layout = model_.layout();
  const LayerPlace& place = layout.layers[index];
  const std::size_t tokens = chunk.tokens(), width = layout.width;
  const bool wide = model_.precision() == Precision::fp32;
  const LinearOut kind = wide ? LinearOut::f32 : LinearOut::bf16;
  for (std::size_t row = 0; row < tokens; row += memory_.block) {
    const std::size_t rows = std::min(memory_.block, tokens - row);
    void* const out = wide ? static_cast<void*>(moved<float>(memory_.qkv, row * 3 * width)) : moved<std::uint16_t>(memory_.qkv, row * 3 * width);
    linear(place.linear[kQkv], rows, stream(place.linear[kQkv], row), memory_.steps.from(row), out, 3 * width, kind);
  }
  member_.sync();
  spent(StageTimes::qkv);
  attend(chunk);
  member_.sync();
  spent(StageTimes::attention);
  for (std::size_t row = 0; row < tokens; row += memory_.block) {
    const std::size_t rows = std::min(memory_.block, tokens - row);
    const LinearPlace& output = place.linear[kAttentionOutput];
    context_codes(output, row, rows);
    const void* const input = output.kind == Kind::int8   ? static_cast<const void*>(memory_.context_codes)
                              : output.kind == Kind::bf16 ? static_cast<const void*>(moved<std::uint16_t>(memory_.context, row * width))
                                                          : static_cast<const void*>(moved<float>(memory_.context, row * width));
    linear(output, rows, input, memory_.context_steps, memory_.scratch, width, LinearOut::f32);
    member_.sync();
    spent(StageTimes::attention_output);
    const std::size_t mine = member_.begin(rows), end = member_.end(rows);
    norm(place.norm[0], row + mine, end - mine, static_cast<const float*>(memory_.scratch) + mine * width, &place.linear[kUp]);
    member_.sync();
    spent(StageTimes::norm);
  }
  for (std::size_t row = 0; row < tokens; row += memory_.block) up(place, row, std::min(memory_.block, tokens - row));
  const LinearPlace* const next = index + 1 < layout.layers.size() ? &layout.layers[index + 1].linear[kQkv] : nullptr;
  for (std::size_t row = 0; row < tokens; row += memory_.block) down(place, row, std::min(memory_.block, tokens - row), next);
}

void Forward::attend(const Chunk& chunk) {
  const std::size_t width = model_.layout().width, head_dim = model_.shape().width / model_.shape().heads;
  const std::size_t first = member_.begin(model_.shape().heads), heads = member_.end(model_.shape().heads) - first, at = first * head_dim;
  if (heads == 0) return;
  void* const scratch = static_cast<std::uint8_t*>(memory_.attention) + member_.rank * memory_.attention_bytes;
  for (std::size_t i = 0; i < chunk.texts; ++i) {
    const std::size_t row = static_cast<std::size_t>(chunk.offsets[i] - chunk.offsets[0]), tokens = static_cast<std::size_t>(chunk.offsets[i + 1] - chunk.offsets[i]);
    if (model_.precision() == Precision::fp32) {
      const kernels::AttentionJob<float> job{moved<float>(memory_.qkv, row * 3 * width + at), 3 * width, width, 2 * width, tokens, heads, head_dim,
                                             moved<float>(memory_.context, row * width + at), width, scratch};
      kernels_.attention_f32->run(&job);
    } else {
      const kernels::AttentionJob<std::uint16_t> job{moved<std::uint16_t>(memory_.qkv, row * 3 * width + at), 3 * width, width, 2 * width, tokens, heads, head_dim,
                                                     moved<std::uint16_t>(memory_.context, row * width + at), width, scratch};
      kernels_.attention_bf16->run(&job);
    }
  }
}

// The context as codes, where the attention's output layer is int8.
void Forward::context_codes(const LinearPlace& place, std::size_t row, std::size_t rows) {
  if (place.kind != Kind::int8) return;
  const std::size_t width = model_.layout().width, first = member_.begin(rows), count = member_.end(rows) - first;
  const kernels::QuantizeJob job{moved<std::uint16_t>(memory_.context, (row + first) * width), width, count, width, memory_.context_codes + first * width, width,
                                 memory_.context_steps.scale + first, memory_.context_steps.low + first};
  kernels_.rows->quantize(&job);
  member_.sync();
  spent(StageTimes::quantize);
}

void Forward::up(const LayerPlace& layer, std::size_t row, std::size_t rows) {
  const std::size_t ffn = model_.layout().ffn;
  const Kind kind = layer.linear[kDown].kind;
  // Codes need a row's maximum first; bfloat16 and float32 are written where they are read.
  void* const out = kind == Kind::int8   ? memory_.scratch
                    : kind == Kind::bf16 ? static_cast<void*>(moved<std::uint16_t>(memory_.ffn, row * ffn))
                                         : static_cast<void*>(moved<float>(memory_.ffn, row * ffn));
  // GELU as part of the pass that makes the codes, where the target has float16 lanes, twice as many as float32's.
  const bool late = kind == Kind::int8 && layer.linear[kUp].kind == Kind::int8 && kernels_.linear_i8->run_f16 != nullptr && kernels_.rows->gelu_codes != nullptr;
  const LinearOut form = late ? LinearOut::f16 : kind == Kind::f32 ? LinearOut::gelu_f32 : LinearOut::gelu_bf16;
  linear(layer.linear[kUp], rows, stream(layer.linear[kUp], row), memory_.steps.from(row), out, ffn, form);
  member_.sync();
  spent(StageTimes::up);
  if (kind != Kind::int8) return;
  const std::size_t mine = member_.begin(rows), count = member_.end(rows) - mine;
  const kernels::QuantizeJob job{static_cast<const std::uint16_t*>(memory_.scratch) + mine * ffn, ffn, count, ffn, moved<std::uint8_t>(memory_.ffn, (row + mine) * ffn), ffn,
                                 memory_.ffn_steps.scale + row + mine, memory_.ffn_steps.low + row + mine};
  (late ? kernels_.rows->gelu_codes : kernels_.rows->quantize_gelu)(&job);
  member_.sync();
  spent(StageTimes::quantize);
}

void Forward::down(const LayerPlace& layer, std::size_t row, std::size_t rows, const LinearPlace* next) {
  const LinearPlace& place = layer.linear[kDown];
  const std::size_t width = model_.layout().width;
  const void* const input = static_cast<const std::uint8_t*>(memory_.ffn) + row * place.depth * bytes_of(place.kind);
  linear(place, rows, input, memory_.ffn_steps.from(row), memory_.scratch, width, LinearOut::f32);
  member_.sync();
  spent(StageTimes::down);
  const std::size_t mine = member_.begin(rows), end = member_.end(rows);
  norm(layer.norm[1], row + mine, end - mine, static_cast<const float*>(memory_.scratch) + mine * width, next);
  member_.sync();
  spent(StageTimes::norm);
}

void Forward::pool(const Chunk& chunk) {
  const std::size_t width = model_.layout().width;
  for (std::size_t i = 0; i < chunk.texts; ++i) {
    const std::size_t row = static_cast<std::size_t>(chunk.offsets[i] - chunk.offsets[0]), tokens = static_cast<std::size_t>(chunk.offsets[i + 1] - chunk.offsets[i]);
    pool_rows(model_.shape(), memory_.x + row * width, tokens, width, chunk.out + i * model_.shape().width);
  }
}

}  // namespace nf::encoder
