// Reading memory as fast as a core can, with the widest loads of the target.
//
// Contract: read(data, bytes) loads every byte of [data, data + bytes) once and returns the xor of its 8-byte words, so that no load can
// be removed and every target gives the same answer. data is aligned to 64 bytes and bytes is a multiple of kBlock.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nf::kernels::probe_read {

// 8 loads of 64 bytes: the largest step of any target.
constexpr std::size_t kBlock = 512;

std::uint64_t read_scalar(const void* data, std::size_t bytes);
std::uint64_t read_avx2(const void* data, std::size_t bytes);
std::uint64_t read_avx512(const void* data, std::size_t bytes);

}  // namespace nf::kernels::probe_read
