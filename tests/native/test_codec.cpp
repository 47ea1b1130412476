// How rows are kept: packed int8 with the length of what the codes leave out, and bfloat16.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "codec/packed.h"
#include "codec/rows.h"
#include "harness.h"
#include "oracle.h"

namespace nf::test {
namespace {

constexpr float kLargest = std::numeric_limits<float>::max();

// Where the code of dimension i of row j stands: sixteen rows interleaved by four dimensions.
std::size_t place_of(std::size_t j, std::size_t i, std::size_t dim) {
  return (j / 16 * ((dim + 3) / 4) + i / 4) * 64 + j % 16 * 4 + i % 4;
}

void check_row(const codec::PackedView& view, std::size_t j, const float* row, std::size_t dim, bool rest) {
  float peak = 0.0f;
  for (std::size_t i = 0; i < dim; ++i) peak = std::max(peak, std::fabs(row[i]));
  const double scale = view.scale[j];
  // Sixteen significant bits: at most 2^-15 above peak / 127, or one float32 step where the scale is denormal.
  CHECK(scale * 127.0 >= static_cast<double>(peak) * (1.0 - 0x1p-15));
  CHECK(scale * 127.0 <= static_cast<double>(peak) * (1.0 + 0x1p-15) + 127.0 * 0x1p-141);
  Tight<float> unpacked(dim);
  codec::unpack_row(view, j, dim, unpacked.data());
  double left = 0.0, square = 0.0;
  for (std::size_t i = 0; i < dim; ++i) {
    const double value = scale * view.codes[place_of(j, i, dim)];
    CHECK(std::abs(view.codes[place_of(j, i, dim)]) <= 127);
    CHECK(static_cast<double>(unpacked[i]) == value);  // scale * code is a float32 without rounding
    CHECK(std::fabs(value - static_cast<double>(row[i])) <= scale * (0.5 + 0x1p-7));
    left += (value - static_cast<double>(row[i])) * (value - static_cast<double>(row[i]));
    square += rest ? static_cast<double>(row[i]) * static_cast<double>(row[i]) : value * value;
  }
  for (std::size_t i = dim; i < (dim + 3) / 4 * 4; ++i) CHECK(view.codes[place_of(j, i, dim)] == 0);
  if (rest) {
    CHECK(static_cast<double>(view.error[j]) >= std::sqrt(left));
    CHECK(static_cast<double>(view.error[j]) <= std::sqrt(left) * (1.0 + 0x1p-20) + 0x1p-149);
  } else {
    CHECK(view.error[j] == 0.0f);
  }
  if (square < static_cast<double>(kLargest)) CHECK(std::fabs(static_cast<double>(view.square[j]) - square) <= square * 0x1p-22 + 0x1p-149);
}

TEST(packed_codes_say_what_they_leave_out) {
  Random random(5);
  for (const std::size_t dim : {1, 2, 3, 4, 5, 15, 16, 33, 384}) {
    for (const Kind kind : kKinds) {
      const Note note(name_of(kind), "dim", dim);
      const std::size_t count = 19;
      const std::vector<float> rows = draw(kind, count, dim, random);
      for (const bool rest : {true, false}) {
        codec::PackedRows packed(count, dim), copied(count + 5, dim);
        for (std::size_t j = count; j-- > 0;) {
          Tight<float> row(dim);
          std::copy_n(rows.data() + j * dim, dim, row.data());
          packed.encode(j, row.data(), rest);
        }
        for (std::size_t j = 0; j < count; ++j) copied.copy(j + 5, packed.view(), j);
        for (std::size_t j = 0; j < count; ++j) {
          check_row(packed.view(), j, rows.data() + j * dim, dim, rest);
          check_row(copied.view(), j + 5, rows.data() + j * dim, dim, rest);
        }
      }
    }
  }
}

TEST(packed_codes_of_extreme_values) {
  const float values[] = {0.0f, -0.0f, kLargest, -kLargest, kLargest / 2, 0x1p-149f, -0x1p-149f, 0x1p-126f, 0x1.fffffep-127f, 1.0f, -1e-30f, 3e38f};
  for (const float a : values) {
    for (const float b : values) {
      const Note note(a, b);
      const float row[] = {a, b, 0.0f};
      codec::PackedRows packed(1, 3);
      packed.encode(0, row, true);
      check_row(packed.view(), 0, row, 3, true);
    }
  }
}

TEST(bfloat16_rounds_to_nearest_even) {
  Random random(6);
  std::vector<float> values = {0.0f, -0.0f, 1.0f, kLargest, -kLargest, 0x1p-149f, 0x1p-133f, 0x1.01p0f, 0x1.03p0f, 0x1.010002p0f, 0x1.feffp127f};
  for (int i = 0; i < 20000; ++i) {
    const auto bits = static_cast<std::uint32_t>(random());
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    if (std::isfinite(value)) values.push_back(value);
  }
  for (std::size_t dim : {std::size_t{1}, values.size()}) {
    Tight<unsigned char> code(codec::row_bytes(Storage::bfloat16, dim), 1);  // not even aligned to its elements
    Tight<float> back(dim, 1);
    codec::encode_row(Storage::bfloat16, values.data(), dim, code.data());
    codec::decode_row(Storage::bfloat16, code.data(), dim, back.data());
    for (std::size_t i = 0; i < dim; ++i) {
      const Note note(values[i]);
      std::uint32_t bits, kept;
      std::memcpy(&bits, &values[i], sizeof(bits));
      std::memcpy(&kept, &back[i], sizeof(kept));
      CHECK((kept & 0xFFFFu) == 0);
      const std::uint32_t down = bits & 0xFFFF0000u, up = down + 0x10000u, half = bits & 0xFFFFu;
      const bool rounds_up = half > 0x8000u || (half == 0x8000u && (down >> 16 & 1u) != 0);
      CHECK(kept == (rounds_up && (up & 0x7F800000u) != 0x7F800000u ? up : down));
    }
  }
}

TEST(float32_rows_stay_as_they_are) {
  Tight<float> row(7, 1), back(7, 1);
  for (std::size_t i = 0; i < 7; ++i) row[i] = static_cast<float>(i) * 0.1f;
  Tight<unsigned char> code(codec::row_bytes(Storage::float32, 7), 3);
  codec::encode_row(Storage::float32, row.data(), 7, code.data());
  codec::decode_row(Storage::float32, code.data(), 7, back.data());
  for (std::size_t i = 0; i < 7; ++i) CHECK(back[i] == row[i]);
  CHECK(codec::row_bytes(Storage::int8, 7) == 0);
}

}  // namespace
}  // namespace nf::test
