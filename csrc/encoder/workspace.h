// The memory of one chunk of tokens on its way through the layers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/aligned.h"
#include "encoder/model.h"
#include "kernels/encoder_dispatch.h"

namespace nf::encoder {

// Rows of the tensors below have `width` or `ffn` values of the layout, its padding included; padding is zero wherever it is read.
// What the codes of each row mean: low + scale * code.
struct Steps {
  float *scale, *low;

  Steps from(std::size_t row) const { return {scale + row, low + row}; }
};

struct Workspace {
  float* x;               // the residual stream
  std::uint8_t* codes;    // x again, for int8 layers
  std::uint16_t* halves;  // for bf16 layers; the same memory as `codes`
  Steps steps;            // of codes
  void* qkv;              // 3 * width values, bfloat16 or float32
  void* context;          // bfloat16 or float32
  std::uint8_t* context_codes;  // of `block` rows
  Steps context_steps;
  void* ffn;              // behind GELU: codes, bfloat16 or float32
  Steps ffn_steps;
  void* scratch;          // `block` rows of float32 sums of `width`, or of bfloat16 of `ffn`
  void* attention;        // one per member of a team
  std::size_t attention_bytes;
  std::size_t block;

  // For chunks of up to `tokens` tokens, none of which stand in a longer sequence than `longest`, worked on by `members` threads, `block` rows at a
  // time. The memory is the calling thread's own and is used again by its next call; std::bad_alloc where there is none.
  static Workspace of_this_thread(const Model& model, const kernels::EncoderKernels& kernels, std::size_t tokens, std::size_t longest, int members, std::size_t block);
};

}  // namespace nf::encoder
