// The one container of every index file, and the only place that knows bytes on disk.
//
//   offset  0   8 bytes   magic "NEARFLD\n"
//           8   u32       format version (1)
//          12   u32       number of sections
//          16   8 bytes   kind: what the file holds ("flat", "hnsw", "frozen"), padded with zero bytes
//          24   u64       length of the whole file in bytes
//          32   u32       CRC-32C of the section table
//          36   u32       CRC-32C of bytes 0..35
//          40   24 bytes  zero
//          64   table     one 48-byte entry per section: name (24 bytes, padded with zero bytes), u64 offset, u64 length, u32 CRC-32C, u32 zero
//          then sections, each starting on a multiple of 64 bytes, in table order; gaps are zero bytes
//
// Numbers are little-endian. A section's meaning belongs to whoever wrote it: the reader must validate what is inside (verify = false
// skips the checksums, so bytes may be anything) and never trust an offset or a count found there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"

namespace nf::storage {

constexpr std::uint32_t kFormatVersion = 1;

// Borrowed bytes; the owner is the MappedFile they came from (or whatever was handed to the writer).
struct Bytes {
  const unsigned char* data = nullptr;
  std::size_t size = 0;

  // The section as an array of `count` elements of T. Throws FormatError when the size is not exactly count * sizeof(T).
  // Sections start on 64-byte boundaries, so the cast is aligned.
  template <typename T>
  const T* as(std::size_t count, const char* what) const {
    if (count > size / sizeof(T) || count * sizeof(T) != size) {
      throw FormatError(std::string("section ") + what + ": " + std::to_string(size) + " bytes found, " + std::to_string(count) + " elements of " +
                        std::to_string(sizeof(T)) + " bytes expected: the file is damaged");
    }
    return reinterpret_cast<const T*>(data);
  }
};

// Writes a container: a temporary file in the same folder, fsync, rename over `path`, fsync of the folder. A crash leaves the old file
// or the new one. A section may be given in several pieces, which are written one after the other.
class Writer {
 public:
  explicit Writer(std::string kind) : kind_(std::move(kind)) {}
  // Starts a section; the name is at most 23 bytes. The memory of its pieces must live until commit().
  void section(std::string name);
  void piece(const void* data, std::size_t bytes);
  void section(std::string name, const void* data, std::size_t bytes) {
    section(std::move(name));
    piece(data, bytes);
  }
  // Throws InputError (with the system's reason) when the file cannot be written; the temporary file is removed.
  void commit(const std::string& path) const;

 private:
  struct Section {
    std::string name;
    std::vector<Bytes> pieces;
    std::size_t bytes = 0;
  };
  std::string kind_;
  std::vector<Section> sections_;
};

// A file mapped read-only (or read into memory), with every header field validated.
class MappedFile {
 public:
  // mmap = false reads the whole file into memory instead, so that later changes of the file cannot reach the process.
  // verify = false skips the sections' checksums (not the header's). Throws FormatError with path and reason.
  static std::shared_ptr<MappedFile> open(const std::string& path, const std::string& kind, bool mmap, bool verify);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  // Throws FormatError when the file has no such section.
  Bytes section(const std::string& name) const;
  bool has(const std::string& name) const;
  const std::string& path() const { return path_; }

 private:
  MappedFile() = default;
  void load(bool mmap);
  void validate(const std::string& kind, bool verify);

  struct Entry {
    std::string name;
    Bytes bytes;
  };
  std::string path_;
  const unsigned char* data_ = nullptr;
  std::size_t size_ = 0;
  bool mapped_ = false;
  std::vector<Entry> entries_;
};

}  // namespace nf::storage
