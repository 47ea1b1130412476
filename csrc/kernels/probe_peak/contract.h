// Loops that do nothing but arithmetic on registers: the highest rate a core reaches, against which kernels are measured.
//
// Contract: run(iterations) performs exactly ops_per_iteration * iterations operations, a multiply-add counting as two, with enough
// independent accumulators to hide the latency of the instruction, and returns a value that depends on all of them, so that no part of
// the loop can be removed. It touches no memory of the caller and may be called from several threads at once.
//
// A target's function may be called only where the CPU and the operating system support the target; probes/peak.cpp checks.
#pragma once

#include <cstdint>

namespace nf::kernels::probe_peak {

struct Loop {
  double ops_per_iteration;
  float (*run)(std::uint64_t iterations);
};

extern const Loop f32_scalar;
extern const Loop f32_avx2;
extern const Loop f32_avx512;

// avx2: vpmaddubsw, vpmaddwd, vpaddd, the three instructions that 32 products of bytes cost without VNNI.
extern const Loop int8_avx2;
extern const Loop int8_avxvnni;
extern const Loop int8_avx512vnni;
extern const Loop int8_amx;

extern const Loop bf16_avx512bf16;
extern const Loop bf16_amx;

}  // namespace nf::kernels::probe_peak
