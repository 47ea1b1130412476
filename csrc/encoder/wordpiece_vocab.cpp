#include "encoder/wordpiece_vocab.h"

#include <algorithm>

#include "base/status.h"

namespace nf::encoder {
namespace {

constexpr std::uint32_t kBlock = 256;
constexpr std::uint32_t kMostUnits = 1u << 24;
// Free places tried for a node before a new block is opened. Nodes with few children nearly always fit in one of the first.
constexpr int kTries = 128;

}  // namespace

// Gives every node a base whose places for its children are free; nodes nearest the root first, so that they lie together.
class Vocabulary::Builder {
 public:
  Builder(const std::vector<Entry>& entries, std::vector<Unit>& units) : entries_(entries), units_(units) {
    grow();
    used_[0] = true;  // the base of nodes without children
  }

  // Returns the root's base.
  std::uint32_t build() {
    std::vector<Node> queue{{0, static_cast<std::uint32_t>(entries_.size()), 0, kNoUnit}};
    std::uint32_t root = 0;
    for (std::size_t next = 0; next < queue.size(); ++next) {
      const Node node = queue[next];
      const std::uint32_t base = place(node, queue);
      if (node.unit == kNoUnit) {
        root = base;
      } else {
        units_[node.unit].link |= base << 8;
      }
    }
    return root;
  }

 private:
  static constexpr std::uint32_t kNoUnit = ~0u;
  struct Node {
    std::uint32_t low, high;  // its entries
    std::uint32_t depth;      // bytes they have in common
    std::uint32_t unit;       // where it is written
  };

  // Takes places for the children, puts them into the queue and returns the node's base.
  std::uint32_t place(const Node& node, std::vector<Node>& queue) {
    std::uint32_t low = node.low;
    if (low < node.high && entries_[low].first.size() == node.depth) {
      if (node.unit != kNoUnit) units_[node.unit].id = entries_[low].second;
      ++low;
    }
    labels_.clear();
    for (std::uint32_t i = low; i < node.high; ++i) {
      const auto label = static_cast<std::uint8_t>(entries_[i].first[node.depth]);
      if (labels_.empty() || labels_.back() != label) labels_.push_back(label);
    }
    if (labels_.empty()) return 0;
    const std::uint32_t base = find_base();
    used_[base] = true;
    for (const std::uint8_t label : labels_) {
      const std::uint32_t unit = base ^ label;
      take(unit);
      units_[unit].link = label + 1u;
      std::uint32_t high = low;
      while (high < node.high && static_cast<std::uint8_t>(entries_[high].first[node.depth]) == label) ++high;
      queue.push_back({low, high, node.depth + 1, unit});
      low = high;
    }
    return base;
  }

  std::uint32_t find_base() {
    // From both ends: the oldest free places keep the table small, the newest have room where those fit nothing (their bases may all be taken).
    for (const std::vector<std::uint32_t>* way : {&next_, &previous_}) {
      int tries = 0;
      for (std::uint32_t unit = (*way)[kListHead]; unit != kListHead && tries < kTries; unit = (*way)[unit], ++tries) {
        const std::uint32_t base = (unit - 1) ^ labels_.front();
        if (fits(base)) return base;
      }
    }
    for (;;) {
      const auto first = static_cast<std::uint32_t>(units_.size());
      grow();
      for (std::uint32_t base = first; base < first + kBlock; ++base) {
        if (fits(base)) return base;
      }
    }
  }

  bool fits(std::uint32_t base) const {
    if (used_[base]) return false;
    return std::all_of(labels_.begin(), labels_.end(), [&](std::uint8_t label) { return units_[base ^ label].link == 0; });
  }

  // The free units are a ring through next_ and previous_, which are shifted by one: place 0 is the list's head.
  static constexpr std::uint32_t kListHead = 0;
  void grow() {
    const auto first = static_cast<std::uint32_t>(units_.size());
    if (first + kBlock > kMostUnits) throw InputError("vocabulary: too large for the native tokenizer");
    units_.resize(first + kBlock);
    used_.resize(first + kBlock, false);
    if (next_.empty()) next_ = previous_ = {kListHead};
    for (std::uint32_t unit = first; unit < first + kBlock; ++unit) {
      const std::uint32_t last = previous_[kListHead];
      next_.push_back(kListHead);
      previous_.push_back(last);
      next_[last] = previous_[kListHead] = unit + 1;
    }
  }
  void take(std::uint32_t unit) {
    const std::uint32_t place = unit + 1;
    next_[previous_[place]] = next_[place];
    previous_[next_[place]] = previous_[place];
  }

  const std::vector<Entry>& entries_;
  std::vector<Unit>& units_;
  std::vector<bool> used_;
  std::vector<std::uint32_t> next_, previous_;
  std::vector<std::uint8_t> labels_;
};

Vocabulary::Vocabulary(std::vector<Entry> entries, const std::string& prefix) {
  std::sort(entries.begin(), entries.end());
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const std::string& text = entries[i].first;
    highest_id_ = std::max(highest_id_, entries[i].second);
    if (entries[i].second < 0) throw InputError("vocabulary: a negative id for '" + text + "'");
    if (text.find('\xff') != std::string::npos) throw InputError("vocabulary: an entry is not UTF-8");
    if (i > 0 && text == entries[i - 1].first) throw InputError("vocabulary: '" + text + "' twice");
  }
  start_ = Builder(entries, units_).build();
  inside_ = start_;
  for (const char byte : prefix) {
    const auto c = static_cast<std::uint8_t>(byte);
    const Unit unit = units_[inside_ ^ c];
    inside_ = (unit.link & 255u) == c + 1u ? unit.link >> 8 : 0;
  }
}

std::int32_t Vocabulary::id_of(const std::string& text) const {
  const auto* const begin = reinterpret_cast<const std::uint8_t*>(text.data());
  const Found found = starting(begin, begin + text.size());
  return found.bytes == text.size() && !text.empty() ? found.id : -1;
}

}  // namespace nf::encoder
