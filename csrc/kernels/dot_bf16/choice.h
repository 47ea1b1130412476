#pragma once

#include "kernels/dot_bf16/contract.h"
#include "kernels/dot_f32/contract.h"

namespace nf::kernels {

// `candidate` where its products of a small tile are right and take less time than widening the rows to float32 and `dot`; null otherwise.
const DotBf16* faster_dot_bf16(const DotBf16& candidate, const DotF32& dot);

}  // namespace nf::kernels
