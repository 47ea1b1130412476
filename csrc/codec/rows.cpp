#include "codec/rows.h"

#include <cstring>

namespace nf::codec {
namespace {

std::uint16_t to_bf16(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const std::uint32_t rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
  const bool overflowed = (rounded & 0x7F80u) == 0x7F80u;
  return static_cast<std::uint16_t>(overflowed ? (bits >> 16 & 0x8000u) | 0x7F7Fu : rounded);
}

float from_bf16(std::uint16_t code) {
  const std::uint32_t bits = static_cast<std::uint32_t>(code) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

}  // namespace

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
