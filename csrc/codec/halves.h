// float32 queries as two bfloat16 parts each, packed for kernels/dot_bf16.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nf::codec {

// Values of one part of `count` packed queries.
std::size_t halves_size(std::size_t count, std::size_t dim);

// Writes halves_size(count, dim) values to each of `high` and `low`. Query i starts at queries + i * stride and is finite.
void pack_halves(const float* queries, std::size_t stride, std::size_t count, std::size_t dim, std::uint16_t* high, std::uint16_t* low);

}  // namespace nf::codec
