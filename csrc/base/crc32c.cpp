#include "base/crc32c.h"

#include <cstring>

namespace nf {
namespace {

constexpr std::uint32_t kPolynomial = 0x82F63B78u;

// table[j][b]: the checksum of byte b followed by j zero bytes, so that eight bytes are taken in one step.
struct Tables {
  std::uint32_t table[8][256];
  Tables() {
    for (std::uint32_t b = 0; b < 256; ++b) {
      std::uint32_t crc = b;
      for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1u) != 0 ? kPolynomial : 0u);
      table[0][b] = crc;
    }
    for (int j = 1; j < 8; ++j) {
      for (std::uint32_t b = 0; b < 256; ++b) {
        const std::uint32_t before = table[j - 1][b];
        table[j][b] = (before >> 8) ^ table[0][before & 0xFFu];
      }
    }
  }
};

std::uint32_t load_le32(const unsigned char* p) {
  return static_cast<std::uint32_t>(p[0]) | static_cast<std::uint32_t>(p[1]) << 8 | static_cast<std::uint32_t>(p[2]) << 16 |
         static_cast<std::uint32_t>(p[3]) << 24;
}

std::uint32_t by_tables(const unsigned char* p, std::size_t bytes, std::uint32_t crc) {
  static const Tables tables;
  const auto& t = tables.table;
  for (; bytes >= 8; bytes -= 8, p += 8) {
    const std::uint32_t low = load_le32(p) ^ crc;
    const std::uint32_t high = load_le32(p + 4);
    crc = t[7][low & 0xFFu] ^ t[6][(low >> 8) & 0xFFu] ^ t[5][(low >> 16) & 0xFFu] ^ t[4][low >> 24] ^ t[3][high & 0xFFu] ^
          t[2][(high >> 8) & 0xFFu] ^ t[1][(high >> 16) & 0xFFu] ^ t[0][high >> 24];
  }
  for (; bytes != 0; --bytes, ++p) crc = (crc >> 8) ^ t[0][(crc ^ *p) & 0xFFu];
  return crc;
}

#if defined(__x86_64__)
// SSE4.2 has the instruction for this very polynomial (2008; every CPU with AVX): one step of eight bytes in three cycles, where tables take
// some twenty. Compiled for this function alone, and called only where the CPU has it.
__attribute__((target("sse4.2"))) std::uint32_t by_instruction(const unsigned char* p, std::size_t bytes, std::uint32_t crc) {
  unsigned long long wide = crc;
  for (; bytes >= 8; bytes -= 8, p += 8) {
    unsigned long long eight;
    std::memcpy(&eight, p, sizeof(eight));
    wide = __builtin_ia32_crc32di(wide, eight);
  }
  crc = static_cast<std::uint32_t>(wide);
  for (; bytes != 0; --bytes, ++p) crc = __builtin_ia32_crc32qi(crc, *p);
  return crc;
}
#endif

}  // namespace

std::uint32_t crc32c(const void* data, std::size_t bytes, std::uint32_t crc) {
  const unsigned char* const p = static_cast<const unsigned char*>(data);
#if defined(__x86_64__)
  if (__builtin_cpu_supports("sse4.2")) return ~by_instruction(p, bytes, ~crc);
#endif
  return ~by_tables(p, bytes, ~crc);
}

std::uint32_t crc32c_by_tables(const void* data, std::size_t bytes, std::uint32_t crc) {
  return ~by_tables(static_cast<const unsigned char*>(data), bytes, ~crc);
}

}  // namespace nf
