// Files: written and read back; truncated, extended and flipped in every byte. What is damaged is refused, or opens and can be searched without
// touching memory that is not its own.
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/crc32c.h"
#include "graph/index.h"
#include "harness.h"
#include "oracle.h"
#include "score/flat_store.h"
#include "storage/layout.h"
#include "storage/sections.h"

namespace nf::test {
namespace {

using storage::MappedFile;
using Image = std::vector<unsigned char>;

constexpr std::size_t kDim = 5, kRows = 21;

enum class Result { refused, opened };

// Opens an image as an index and uses all of it: every row is read and searched.
using Use = std::function<void(const std::shared_ptr<MappedFile>&)>;

Result use(const TemporaryFile& file, const Image& image, const std::string& kind, bool mmap, bool verify, const Use& all_of_it) {
  file.write(image.data(), image.size());
  try {
    all_of_it(MappedFile::open(file.path(), kind, mmap, verify));
  } catch (const FormatError&) {
    return Result::refused;
  }
  return Result::opened;
}

Use flat_use(Metric metric, Storage storage) {
  return [=](const std::shared_ptr<MappedFile>& file) {
    const score::FlatStore store(file, kDim, metric, storage, kRows);
    const std::vector<float> queries(2 * kDim, 0.25f);
    std::vector<std::int64_t> slots(2 * kRows), counts(2);
    std::vector<float> scores(2 * kRows), rows(kRows * kDim);
    for (const std::size_t k : {std::size_t{3}, kRows}) {
      score::Options options;
      options.k = k;
      store.search(MatrixView<float>(queries.data(), 2, kDim), options, kRows, score::Answer{slots.data(), scores.data(), counts.data()});
      // Without verification results are not guaranteed: a scale that became NaN keeps its row out of the answer.
      CHECK(counts[0] >= 0 && counts[0] <= static_cast<std::int64_t>(k));
      for (std::size_t i = 0; i < k; ++i) CHECK(slots[i] >= -1 && slots[i] < static_cast<std::int64_t>(kRows));
    }
    store.get(store.live_slots(), rows.data());
    CHECK(store.compacted()->slots() == kRows);
  };
}

void hnsw_use(const std::shared_ptr<MappedFile>& file) {
  const auto opened = graph::Hnsw::load(*file);
  const graph::Sight index(*opened);
  const std::vector<float> queries(2 * index.params().dim, 0.25f);
  graph::Request request;
  request.queries = queries.data();
  request.nq = 2;
  request.k = 3;
  std::vector<std::int64_t> nodes(6), counts(2);
  std::vector<float> scores(6);
  for (const graph::Mode mode : {graph::Mode::walk, graph::Mode::scan, graph::Mode::automatic}) {
    request.mode = mode;
    index.search(request, graph::Answer{nodes.data(), scores.data(), counts.data()});
    for (const std::int64_t node : nodes) CHECK(node >= -1 && node < static_cast<std::int64_t>(index.size()));
  }
  std::vector<float> rows(index.size() * index.params().dim);
  index.get(index.live_nodes(), rows.data());
  opened->append(queries.data(), 1, {}, 1);
}

struct Sample {
  std::string name, kind;
  Image image;
  Use use;
};

std::vector<Sample> samples() {
  Random random(30);
  std::vector<Sample> all;
  const std::vector<float> rows = draw(Kind::normal, kRows + 1, kDim, random);
  for (const Storage storage : {Storage::float32, Storage::bfloat16, Storage::int8}) {
    const Metric metric = storage == Storage::bfloat16 ? Metric::l2 : Metric::cosine;
    score::FlatStore store(kDim, metric, storage);
    store.append(MatrixView<float>(rows.data(), kRows + 1, kDim), {}, 1);
    store.append(MatrixView<float>(rows.data(), 0, kDim), {4}, 1);
    const TemporaryFile file;
    storage::Writer writer("flat");
    store.save(writer, file.path());
    all.push_back({std::string("flat ") + nf::name_of(storage), "flat", file.read(), flat_use(metric, storage)});
  }
  graph::Params params;
  params.dim = kDim;
  params.m = 2;
  params.ef_construction = 10;
  graph::Hnsw index(params);
  index.append(rows.data(), kRows, {}, 1);
  index.append(rows.data(), 0, {3}, 1);
  const TemporaryFile file;
  storage::Writer writer("hnsw");
  index.save(writer, file.path());
  all.push_back({"hnsw", "hnsw", file.read(), hnsw_use});
  return all;
}

TEST(files_are_read_back) {
  const TemporaryFile file;
  const std::string content = "twelve bytes", more = "and more";
  storage::Writer writer("test");
  writer.section("empty");
  writer.section("pieces", content.data(), content.size());
  writer.piece(more.data(), more.size());
  CHECK_THROWS(InputError, "1 to 23 bytes", writer.section(std::string(24, 'x')));
  writer.commit(file.path());
  writer.commit(file.path());  // over itself
  for (const bool mmap : {true, false}) {
    const auto opened = MappedFile::open(file.path(), "test", mmap, true);
    CHECK(opened->has("empty") && !opened->has("other") && opened->section("empty").size == 0);
    const storage::Bytes bytes = opened->section("pieces");
    CHECK(std::string(bytes.data, bytes.data + bytes.size) == content + more);
    CHECK(bytes.as<std::uint32_t>(5, "pieces") != nullptr);
    CHECK_THROWS(FormatError, "section pieces", bytes.as<std::uint64_t>(2, "pieces"));
    CHECK_THROWS(FormatError, "section pieces", bytes.as<std::uint64_t>(std::size_t{1} << 62, "pieces"));
    CHECK_THROWS(FormatError, "no section 'other'", opened->section("other"));
    CHECK_THROWS(FormatError, "holds a 'test' index", MappedFile::open(file.path(), "flat", mmap, true));
    CHECK_THROWS(FormatError, "cannot be opened", MappedFile::open(file.path() + ".none", "test", mmap, true));
    CHECK_THROWS(FormatError, "not a file", MappedFile::open("/tmp", "test", mmap, true));
  }
  CHECK_THROWS(InputError, "cannot be written", writer.commit(file.path() + "/below/a/file"));
}

TEST(every_truncated_or_extended_file_is_refused) {
  const TemporaryFile file;
  for (const Sample& sample : samples()) {
    const Note note(sample.name);
    for (const bool mmap : {true, false}) {
      CHECK(use(file, sample.image, sample.kind, mmap, true, sample.use) == Result::opened);
      for (const bool verify : {true, false}) {
        Image longer = sample.image;
        longer.resize(longer.size() + 64, 0);
        CHECK(use(file, longer, sample.kind, mmap, verify, sample.use) == Result::refused);
      }
    }
    for (std::size_t size = 0; size < sample.image.size(); ++size) {
      const Note place("size", size);
      const Image cut(sample.image.begin(), sample.image.begin() + static_cast<std::ptrdiff_t>(size));
      CHECK(use(file, cut, sample.kind, size % 2 == 0, size % 3 == 0, sample.use) == Result::refused);
    }
  }
}

// Each byte in turn. With verification every one is noticed; without it, what opens must be safe to use.
TEST(every_flipped_byte_is_refused_or_harmless) {
  Random random(31);
  const TemporaryFile file;
  for (const Sample& sample : samples()) {
    const Note note(sample.name);
    for (std::size_t at = 0; at < sample.image.size(); ++at) {
      const Note place("byte", at);
      Image flipped = sample.image;
      flipped[at] ^= static_cast<unsigned char>(1u << random() % 8);
      CHECK(use(file, flipped, sample.kind, at % 2 == 0, true, sample.use) == Result::refused);
      use(file, flipped, sample.kind, at % 2 != 0, false, sample.use);
      flipped[at] = at % 3 == 0 ? 0xFF : at % 3 == 1 ? 0x7F : 0x80;  // exponents of NaN and infinity, ends of lists, large counts
      use(file, flipped, sample.kind, false, false, sample.use);
    }
  }
}

void mend_checksums(Image& image) {
  const std::uint32_t count = storage::get32(image.data() + 12);
  const std::size_t table = static_cast<std::size_t>(count) * storage::kEntryBytes;
  if (storage::kHeaderBytes + table <= image.size()) storage::put32(image.data() + 32, crc32c(image.data() + storage::kHeaderBytes, table));
  storage::put32(image.data() + 36, crc32c(image.data(), 36));
}

// A hostile file has checksums that fit: values of header, table and of the first section are replaced, then signed anew.
TEST(hostile_files_with_good_checksums_are_safe) {
  Random random(32);
  const TemporaryFile file;
  const std::uint64_t lures[] = {0, 1, 63, 64, 128, 1u << 10, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, std::uint64_t{1} << 62, ~std::uint64_t{0}, ~std::uint64_t{63}};
  for (const Sample& sample : samples()) {
    const Note note(sample.name);
    const std::size_t sections = storage::get32(sample.image.data() + 12), table_end = storage::kHeaderBytes + sections * storage::kEntryBytes;
    for (std::size_t at = 8; at < table_end + 64; at += 4) {
      for (const std::uint64_t lure : lures) {
        const Note place("at", at, "value", lure);
        Image bent = sample.image;
        if (at % 8 == 0) {
          storage::put64(bent.data() + at, lure);
        } else {
          storage::put32(bent.data() + at, static_cast<std::uint32_t>(lure));
        }
        mend_checksums(bent);
        for (const bool verify : {true, false}) use(file, bent, sample.kind, random() % 2 == 0, verify, sample.use);
      }
    }
    for (int round = 0; round < (kSanitized ? 1000 : 5000); ++round) {  // several places at once, in the sections alone
      Image bent = sample.image;
      for (int place = 0; place < 4; ++place) bent[table_end + random() % (bent.size() - table_end)] = static_cast<unsigned char>(random());
      use(file, bent, sample.kind, false, false, sample.use);
    }
  }
}

}  // namespace
}  // namespace nf::test
