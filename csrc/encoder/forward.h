// One chunk of whole sequences through all layers, by one thread or by a team in step.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "encoder/model.h"
#include "encoder/workspace.h"
#include "kernels/encoder_dispatch.h"
#include "parallel/team.h"

namespace nf::encoder {

// Sequences one behind the other: sequence i is ids[offsets[i] - offsets[0]] and on.
struct Chunk {
  const std::int32_t* ids;
  const std::int64_t* offsets;
  std::size_t texts;
  float* out;  // (texts, width of the model)

  std::size_t tokens() const { return static_cast<std::size_t>(offsets[texts] - offsets[0]); }
};

// A thread's place in a team that works on one chunk. Rows, columns and heads are shared out among the members; each result is computed whole
// by one of them, so that its bits do not depend on their number.
struct Member {
  std::size_t rank = 0, count = 1;
  parallel::Barrier* barrier = nullptr;

  void sync() const {
    if (count > 1) barrier->wait();
  }
  // This member's share of `items` in units of `unit`.
  std::size_t begin(std::size_t items, std::size_t unit = 1) const { return share(items, unit, rank); }
  std::size_t end(std::size_t items, std::size_t unit = 1) const { return share(items, unit, rank + 1); }

 private:
  std::size_t share(std::size_t items, std::size_t unit, std::size_t which) const {
    const std::size_t place = (items + unit - 1) / unit * which / count * unit;
    return place < items ? place : items;
  }
};

class Forward {
 public:
  Forward(const Model& model, const kernels::EncoderKernels& kernels, const Workspace& memory, const Member& member, StageTimes* times)
      : model_(model), kernels_(kernels), memory_(memory), member_(member), times_(times) {}

  // Every member of the team calls this with the same chunk.
  void run(const Chunk& chunk);

 private:
  using Clock = std::chrono::steady_clock;

  void embed(const Chunk& chunk);
  void layer(const Chunk& chunk, std::size_t index);
  void attend(const Chunk& chunk);
  void linear(const LinearPlace& place, std::size_t rows, const void* input, const Steps& steps, void* out, std::size_t out_stride,
              kernels::LinearOut kind);
  void norm(const NormPlace& place, std::size_t row, std::size_t rows, const float* add, const LinearPlace* next);
  void context_codes(const LinearPlace& place, std::size_t row, std::size_t rows);
  void up(const LayerPlace& layer, std::size_t row, std::size_t rows);
  void down(const LayerPlace& layer, std::size_t row, std::size_t rows, const LinearPlace* next);
  const void* stream(const LinearPlace& place, std::size_t row) const;
  void pool(const Chunk& chunk);
  void spent(StageTimes::Stage stage);

  const Model& model_;
  const kernels::EncoderKernels& kernels_;
  const Workspace& memory_;
  const Member member_;
  StageTimes* const times_;
  Clock::time_point last_;
};

}  // namespace nf::encoder
