#include "codec/rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace nf::codec {
namespace {

constexpr int kCodeMax = 127;

std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

float float_of(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

std::uint16_t to_bf16(float value) {
  const std::uint32_t bits = bits_of(value);
  const std::uint32_t rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
  const bool overflowed = (rounded & 0x7F80u) == 0x7F80u;
  return static_cast<std::uint16_t>(overflowed ? (bits >> 16 & 0x8000u) | 0x7F7Fu : rounded);
}

// The smallest float32 with at most 16 significant bits that is >= peak / 127, or the largest such whose 127-fold stays finite.
float scale_for(float peak) {
  if (peak == 0.0f) return 0.0f;
  float scale = static_cast<float>(static_cast<double>(peak) / kCodeMax);
  if (static_cast<double>(scale) * kCodeMax < peak) scale = std::nextafter(scale, std::numeric_limits<float>::infinity());
  const std::uint32_t bits = (bits_of(scale) + 0xFFu) & ~0xFFu;
  if (static_cast<double>(float_of(bits)) * kCodeMax > std::numeric_limits<float>::max()) return float_of(bits - 0x100u);
  return float_of(bits);
}

void encode_int8(const float* row, std::size_t dim, unsigned char* out) {
  float peak = 0.0f;
  for (std::size_t i = 0; i < dim; ++i) peak = std::max(peak, std::fabs(row[i]));
  const float scale = scale_for(peak);
  std::memcpy(out, &scale, sizeof(scale));
  for (std::size_t i = 0; i < dim; ++i) {
    const double code = scale == 0.0f ? 0.0 : std::nearbyint(static_cast<double>(row[i]) / scale);
    out[sizeof(scale) + i] = static_cast<unsigned char>(static_cast<std::int8_t>(std::min<double>(std::max<double>(code, -kCodeMax), kCodeMax)));
  }
}

}  // namespace

std::size_t row_bytes(Storage storage, std::size_t dim) {
  switch (storage) {
    case Storage::float32: return dim * sizeof(float);
    case Storage::bfloat16: return dim * sizeof(std::uint16_t);
    case Storage::int8: return dim + sizeof(float);
  }
  return 0;
}

void encode_row(Storage storage, const float* row, std::size_t dim, unsigned char* out) {
  switch (storage) {
    case Storage::float32: std::memcpy(out, row, dim * sizeof(float)); return;
    case Storage::bfloat16:
      for (std::size_t i = 0; i < dim; ++i) {
        const std::uint16_t code = to_bf16(row[i]);
        std::memcpy(out + i * sizeof(code), &code, sizeof(code));
      }
      return;
    case Storage::int8: encode_int8(row, dim, out); return;
  }
}

void decode_rows(Storage storage, const unsigned char* rows, std::size_t count, std::size_t dim, float* out) {
  switch (storage) {
    case Storage::float32: std::memcpy(out, rows, count * dim * sizeof(float)); return;
    case Storage::bfloat16:
      for (std::size_t i = 0; i < count * dim; ++i) {
        std::uint16_t code;
        std::memcpy(&code, rows + i * sizeof(code), sizeof(code));
        out[i] = float_of(static_cast<std::uint32_t>(code) << 16);
      }
      return;
    case Storage::int8:
      for (std::size_t j = 0; j < count; ++j) {
        const unsigned char* record = rows + j * (dim + sizeof(float));
        float scale;
        std::memcpy(&scale, record, sizeof(scale));
        const unsigned char* codes = record + sizeof(scale);
        for (std::size_t i = 0; i < dim; ++i) out[j * dim + i] = scale * static_cast<float>(static_cast<std::int8_t>(codes[i]));
      }
      return;
  }
}

}  // namespace nf::codec
