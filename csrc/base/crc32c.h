// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), the checksum of every section on disk.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nf {

// crc32c("123456789") == 0xE3069283. Continue a running checksum by passing the previous result as `crc`.
std::uint32_t crc32c(const void* data, std::size_t bytes, std::uint32_t crc = 0);

// The same without the CPU's own instruction, for machines that lack it and for tests.
std::uint32_t crc32c_by_tables(const void* data, std::size_t bytes, std::uint32_t crc = 0);

}  // namespace nf
