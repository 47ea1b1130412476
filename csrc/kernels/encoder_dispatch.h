// From the active target to the encoder's kernels, as kernels/dispatch.h for the others.
#pragma once

#include "kernels/attention/contract.h"
#include "kernels/encoder_rows/contract.h"
#include "kernels/linear_bf16/contract.h"
#include "kernels/linear_f32/contract.h"
#include "kernels/linear_i8/contract.h"

namespace nf::kernels {

struct EncoderKernels {
  const LinearI8* linear_i8;
  const LinearBf16* linear_bf16;
  const LinearF32* linear_f32;
  const AttentionBf16* attention_bf16;
  const AttentionF32* attention_f32;
  const EncoderRows* rows;
};

// Where the active target has no kernel of its own, its parent's stands in: one machine always gives the same bits. Throws InputError as
// simd::active() does; taken once per call, on the caller's thread.
EncoderKernels encoder_kernels();

}  // namespace nf::kernels
