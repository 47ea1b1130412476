// A call: what was given is checked, cut into chunks of whole texts, and shared out among threads.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "encoder/forward.h"
#include "encoder/model.h"
#include "kernels/encoder_dispatch.h"
#include "parallel/pool.h"
#include "parallel/team.h"
#include "parallel/turns.h"

namespace nf::encoder {
namespace {

// Tokens of one chunk: enough that reading 10 MB of weights from the third-level cache once for each chunk (0.4 ms) is little beside the work
// (10 ms), few enough that one tensor and one matrix at a time stay in the second-level cache. Measured: 256 tokens cost 8 % more, 1,024 4 %.
constexpr std::size_t kChunkTokens = 512;
// Rows that go through a linear layer at a time: their codes (24 KB at width 384) stay in the first-level cache.
constexpr std::size_t kBlockRows = 64;
// Calls with no more tokens are worked on by a team in step, since each thread reads only its part of the weights.
constexpr std::size_t kTeamTokens = 128;

// Calls that are under way in this process: a team would only wait for members that others keep from running.
std::atomic<int> calls{0};

// Where members had no processor to run on, calls work alone for a while: in step with a thread that is not running, one costs milliseconds.
constexpr int kMostGivenUp = 4;
constexpr std::chrono::milliseconds kAlone{20};
std::atomic<std::int64_t> alone_until{0};  // steady_clock's count

std::int64_t now() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

struct Counted {
  const int before = calls.fetch_add(1, std::memory_order_relaxed);
  Counted() = default;
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  ~Counted() { calls.fetch_sub(1, std::memory_order_relaxed); }
};

Status check_call(const Shape& shape, const std::int32_t* ids, const std::int64_t* offsets, std::size_t texts) {
  if (offsets[0] != 0) return Status::bad_input("offsets: the first is " + std::to_string(offsets[0]) + ", 0 expected");
  for (std::size_t i = 0; i < texts; ++i) {
    const std::int64_t count = offsets[i + 1] - offsets[i];
    if (count < 1 || count > static_cast<std::int64_t>(shape.positions)) {
      return Status::bad_input("text " + std::to_string(i) + ": " + std::to_string(count) + " tokens given, 1 to " + std::to_string(shape.positions) + " expected");
    }
    for (std::int64_t t = offsets[i]; t < offsets[i + 1]; ++t) {
      if (ids[t] < 0 || static_cast<std::uint32_t>(ids[t]) >= shape.vocab) {
        return Status::bad_input("text " + std::to_string(i) + ": token id " + std::to_string(ids[t]) + " given, 0 to " + std::to_string(shape.vocab - 1) +
                                 " expected; the tokenizer belongs to another model");
      }
    }
  }
  return Status::good();
}

// First texts of the chunks, and the number of texts at the end. Chunks shrink towards the end, to a thread's share of what is left: equal ones
// leave a thread alone with the last of them (32 texts of 167 tokens in chunks of three: 18 for one of two threads, 14 for the other).
std::vector<std::size_t> cut(const std::int64_t* offsets, std::size_t texts, std::size_t threads) {
  std::vector<std::size_t> chunks{0};
  const auto room = [&] { return std::min(kChunkTokens, static_cast<std::size_t>(offsets[texts] - offsets[chunks.back()]) / threads); };
  std::size_t tokens = room();
  for (std::size_t i = 1; i < texts; ++i) {
    if (static_cast<std::size_t>(offsets[i + 1] - offsets[chunks.back()]) <= tokens) continue;
    chunks.push_back(i);
    tokens = room();
  }
  chunks.push_back(texts);
  return chunks;
}

class Call {
 public:
  Call(const Model& model, const std::int32_t* ids, const std::int64_t* offsets, std::size_t texts, float* out)
      : model_(model), kernels_(kernels::encoder_kernels()), ids_(ids), offsets_(offsets), texts_(texts), out_(out) {}

  Chunk chunk(std::size_t first, std::size_t end) const {
    return {ids_ + offsets_[first], offsets_ + first, end - first, out_ + first * model_.shape().width};
  }

  std::size_t longest(const Chunk& chunk) const {
    std::int64_t most = 0;
    for (std::size_t i = 0; i < chunk.texts; ++i) most = std::max(most, chunk.offsets[i + 1] - chunk.offsets[i]);
    return static_cast<std::size_t>(most);
  }

  void alone(const Chunk& chunk, StageTimes* times) const {
    const Workspace memory = Workspace::of_this_thread(model_, kernels_, chunk.tokens(), longest(chunk), 1, std::min(kBlockRows, chunk.tokens()));
    Forward(model_, kernels_, memory, Member(), times).run(chunk);
  }

  // All texts as one chunk, by a team in step; false where there is none to have.
  bool together(int threads) const {
    if (now() < alone_until.load(std::memory_order_relaxed)) return false;
    const Chunk all = chunk(0, texts_);
    const int members = std::min(threads, parallel::kMaxTeam);
    const Workspace memory = Workspace::of_this_thread(model_, kernels_, all.tokens(), longest(all), members, all.tokens());
    parallel::Barrier barrier(members);
    const bool ran = parallel::run_team(members, [&](int rank) {
      Forward(model_, kernels_, memory, Member{static_cast<std::size_t>(rank), static_cast<std::size_t>(members), &barrier}, nullptr).run(all);
    });
    if (barrier.given_up() > kMostGivenUp) alone_until.store(now() + std::chrono::steady_clock::duration(kAlone).count(), std::memory_order_relaxed);
    return ran;
  }

  Status shared_out(int threads) const {
    const std::vector<std::size_t> chunks = cut(offsets_, texts_, static_cast<std::size_t>(threads));
    std::atomic<std::size_t> next{0};
    const std::size_t workers = std::min(static_cast<std::size_t>(threads), chunks.size() - 1);
    return parallel::parallel_for(workers, static_cast<int>(workers), [&](std::size_t, std::size_t, std::size_t) {
      for (std::size_t i = next++; i + 1 < chunks.size(); i = next++) alone(chunk(chunks[i], chunks[i + 1]), nullptr);
    });
  }

 private:
  const Model& model_;
  const kernels::EncoderKernels kernels_;
  const std::int32_t* const ids_;
  const std::int64_t* const offsets_;
  const std::size_t texts_;
  float* const out_;
};

}  // namespace

Status Model::encode(const std::int32_t* ids, const std::int64_t* offsets, std::size_t texts, float* out, int threads, StageTimes* times) const {
  if (texts == 0) return Status::good();
  Status found = check_call(shape(), ids, offsets, texts);
  if (!found.ok()) return found;
  const Counted counted;
  const Call call(*this, ids, offsets, texts, out);
  if (times != nullptr) {
    const std::vector<std::size_t> chunks = cut(offsets, texts, 1);
    for (std::size_t i = 0; i + 1 < chunks.size(); ++i) call.alone(call.chunk(chunks[i], chunks[i + 1]), times);
    return found;
  }
  // Long calls take none: short ones would wait behind them.
  std::optional<parallel::Turn> turn;
  if (offsets[texts] <= static_cast<std::int64_t>(kChunkTokens)) turn.emplace();
  const bool few = texts == 1 || offsets[texts] <= static_cast<std::int64_t>(kTeamTokens);
  if (few && (threads < 2 || counted.before > 0 || !call.together(threads))) call.alone(call.chunk(0, texts), nullptr);
  return few ? found : call.shared_out(threads);
}

}  // namespace nf::encoder
