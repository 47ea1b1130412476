// From the active target to a kernel. Where the target has no kernel of its own, its parent's stands in (simd/targets.h). Where no target is
// forced, scan_i8, whose results do not depend on it, is the one that a measurement at first use found fastest; the others, whose last bits
// may differ, go by the table, so that one machine always gives the same bits.
// Each call reads simd::active(), which throws InputError for a bad NEARFIELD_TARGET: take the table once per job, on the caller's thread.
#pragma once

#include "kernels/code_i8/contract.h"
#include "kernels/dot_bf16/contract.h"
#include "kernels/dot_f32/contract.h"
#include "kernels/dot_i8/contract.h"
#include "kernels/estimate_1bit/contract.h"
#include "kernels/hadamard/contract.h"
#include "kernels/insert_key/contract.h"
#include "kernels/l2sqr_f32/contract.h"
#include "kernels/scan_1bit/contract.h"
#include "kernels/scan_i8/contract.h"

namespace nf::kernels {

const DotF32& dot_f32();
const L2SqrF32& l2sqr_f32();
const DotI8& dot_i8();
const ScanI8& scan_i8();
// Null where float32 products of widened rows are as fast: on every target but AMX. A forced target has it only where its own row names one.
const DotBf16* dot_bf16();
const Scan1Bit& scan_1bit();
const Estimate1Bit& estimate_1bit();
const InsertKey& insert_key();
const Hadamard& hadamard();
const CodeI8& code_i8();

}  // namespace nf::kernels
