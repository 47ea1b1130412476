#include "codec/rows.h"

#include <cstring>

#include "base/bf16.h"

namespace nf::codec {
std::size_t row_bytes(Storage storage, std::size_t dim) {
  switch (storage) {
    case Storage::float32: return dim * sizeof(float);
    case Storage::bfloat16: return dim * sizeof(std::uint16_t);
    case Storage::int8: return 0;
  }
  return 0;
}

void encode_row(Storage storage, const float* row, std::size_t dim, unsigned char* out) {
  if (storage == Storage::float32) std::memcpy(out, row, dim * sizeof(float));
  for (std::size_t i = 0; storage == Storage::bfloat16 && i < dim; ++i) {
    const std::uint16_t code = to_bf16(row[i]);
    std::memcpy(out + i * sizeof(code), &code, sizeof(code));
  }
}

void decode_row(Storage storage, const unsigned char* row, std::size_t dim, float* out) {
  if (storage == Storage::float32) std::memcpy(out, row, dim * sizeof(float));
  for (std::size_t i = 0; storage == Storage::bfloat16 && i < dim; ++i) {
    std::uint16_t code;
    std::memcpy(&code, row + i * sizeof(code), sizeof(code));
    out[i] = from_bf16(code);
  }
}

}  // namespace nf::codec
