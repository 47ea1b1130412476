// How one vector is kept: float32 as it is, bfloat16 rounded to nearest even, int8 with one scale in front of its codes.
//
// A decoded row is exactly the row that is stored: bfloat16 is a float32 with 16 zero bits, and an int8 scale keeps 16 significant bits,
// so scale * code (7 bits) is a float32 without rounding. Exact search over a store is exact over its decoded rows.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/metric.h"

namespace nf::codec {

// Bytes of one encoded row.
std::size_t row_bytes(Storage storage, std::size_t dim);

// Encodes one row of finite values. Values beyond the largest finite bfloat16 or int8 code become that largest value.
void encode_row(Storage storage, const float* row, std::size_t dim, unsigned char* out);

// Decodes `count` consecutive encoded rows into a dense float32 matrix.
void decode_rows(Storage storage, const unsigned char* rows, std::size_t count, std::size_t dim, float* out);

}  // namespace nf::codec
