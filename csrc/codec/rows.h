// How one vector is kept row by row: float32 as it is, or bfloat16 rounded to nearest even. int8 rows are kept packed (codec/packed.h).
//
// A decoded row is exactly the row that is stored: a bfloat16 is a float32 with 16 zero bits. Exact search over a store is exact over its
// decoded rows.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/metric.h"

namespace nf::codec {

// Bytes of one encoded row; 0 for int8.
std::size_t row_bytes(Storage storage, std::size_t dim);

// Encodes one row of finite values. Values beyond the largest finite bfloat16 become that. Nothing is written for int8.
void encode_row(Storage storage, const float* row, std::size_t dim, unsigned char* out);

// Decodes one encoded row into `dim` float32 values. Not for int8.
void decode_row(Storage storage, const unsigned char* row, std::size_t dim, float* out);

}  // namespace nf::codec
