"""Writes ``unicode_tables.cpp``: what the installed ``tokenizers`` does with each code point, found by asking it.

    python csrc/encoder/make_unicode_tables.py            writes the file beside this one
    python csrc/encoder/make_unicode_tables.py --check    exits 1 where the file would change

Asked, not taken from a Unicode release: its categories, its decompositions, its letter cases and its regular expressions follow four
different versions of Unicode, and a vector must not depend on which of them Python has. A new version of the library may change the
answers; the tests that compare with it will say so, and this writes the new file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

TARGET = Path(__file__).with_name("unicode_tables.cpp")
BLOCK = 128
LIMIT = 0x110000
HANGUL = range(0xAC00, 0xAC00 + 11172)  # decomposed by arithmetic

# Bits of a record's flags; unicode_tables.h has the same.
REMOVED, SPACE, CHINESE, WHITE, PUNCTUATION, MARK, WORD, DECOMPOSES, LOWERS_TO_MANY = (1 << i for i in range(9))


@dataclass(frozen=True)
class Answers:
    """What the library says, by code point; surrogates are left out."""

    flags: dict[int, int]
    order: dict[int, int]  # canonical combining order: 0 for starters, else a rank that compares like the class
    lower: dict[int, str]
    decomposed: dict[int, str]


def code_points() -> Iterator[int]:
    """Every scalar value."""
    yield from range(0xD800)
    yield from range(0xE000, LIMIT)


def bert(**steps: bool) -> Callable[[str], str]:
    """The BERT normalizer with these steps alone."""
    names = ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
    normalize: Callable[[str], str] = normalizers.BertNormalizer(**{name: steps.get(name, False) for name in names}).normalize_str
    return normalize


def ask() -> Answers:
    """Asks for each code point."""
    clean, chinese, strip, lowercase = (
        bert(**{step: True}) for step in ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
    )
    nfd: Callable[[str], str] = normalizers.NFD().normalize_str
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    words = word_characters()
    flags, lower, decomposed = {}, {}, {}
    for point in code_points():
        c = chr(point)
        bits = WORD if point in words else 0
        cleaned = clean(c)
        bits |= REMOVED if cleaned == "" else SPACE if cleaned == " " and c != " " else 0
        assert cleaned in ("", " ", c), point
        bits |= CHINESE if chinese(c) != c else 0
        pieces = [piece for piece, _ in split(f"a{c}a")]
        bits |= WHITE if pieces == ["a", "a"] else PUNCTUATION if pieces == ["a", c, "a"] else 0
        assert bits & (WHITE | PUNCTUATION) or pieces == [f"a{c}a"], point
        parts = nfd(c)
        stripped = strip(c)
        if parts == c:
            bits |= MARK if stripped == "" else 0
            assert stripped in ("", c), point
        elif point not in HANGUL:
            decomposed[point] = parts
            bits |= DECOMPOSES
        small = lowercase(c)
        if small != c:
            lower[point] = small
            bits |= LOWERS_TO_MANY if len(small) != 1 else 0
        flags[point] = bits
    for point in code_points():  # stripping is: decompose, then drop the marks
        assert strip(chr(point)) == "".join(p for p in nfd(chr(point)) if not flags[ord(p)] & MARK), point
    for point in HANGUL:
        assert nfd(chr(point)) == hangul(point), point
    return Answers(flags, combining_order(nfd, decomposed), lower, decomposed)


def word_characters() -> set[int]:
    r"""Code points that are ``\w``, at which a single-word token may not touch: asked by such a token behind each."""
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.add_special_tokens([AddedToken("<t>", single_word=True, normalized=False)])
    points = list(code_points())
    found = set()
    for start in range(0, len(points), 65536):
        part = points[start : start + 65536]
        before = tokenizer.encode_batch_fast([f"{chr(p)}<t>" for p in part])
        after = tokenizer.encode_batch_fast([f"<t>{chr(p)}" for p in part])
        for point, one, other in zip(part, before, after, strict=True):
            assert (1 in one.ids) == (1 in other.ids), point
            if 1 not in one.ids:
                found.add(point)
    return found


def hangul(point: int) -> str:
    """A syllable's letters."""
    lead, rest = divmod(point - 0xAC00, 21 * 28)
    vowel, tail = divmod(rest, 28)
    return chr(0x1100 + lead) + chr(0x1161 + vowel) + (chr(0x11A7 + tail) if tail else "")


def combining_order(nfd: Callable[[str], str], decomposed: dict[int, str]) -> dict[int, int]:
    """Ranks of the code points that canonical ordering moves: a pair out of order comes back swapped."""
    low, high = "\u0334", "\u0345"  # classes 1 and 240, the least and the greatest
    assert nfd("a" + high + low) == "a" + low + high
    # Behind `high` a starter keeps its place; a code point that is not one lets `low` or, of the least class itself, goes before it.
    movable = [p for p in code_points() if p not in decomposed and p not in HANGUL and nfd(f"a{high}{chr(p)}{low}")[1] != high]
    ranks: list[list[int]] = []
    for point in movable:
        place_in(ranks, point, lambda a, b: nfd(f"a{chr(b)}{chr(a)}") == f"a{chr(a)}{chr(b)}" and a != b)
    return {point: rank + 1 for rank, members in enumerate(ranks) for point in members}


def place_in(ranks: list[list[int]], point: int, below: Callable[[int, int], bool]) -> None:
    """Puts a code point into its class. ``below(a, b)`` holds where b, a comes back as a, b: never within a class."""

    def before(a: int, b: int) -> bool:
        return below(a, b) and not below(b, a)

    for place, members in enumerate(ranks):
        if before(point, members[0]):
            ranks.insert(place, [point])
            return
        if not before(members[0], point):
            members.append(point)
            return
    ranks.append([point])


def table(values: Sequence[int], size: int) -> tuple[list[int], list[int]]:
    """Two stages: which block a part of ``size`` code points is, and the distinct blocks one behind the other."""
    blocks: dict[tuple[int, ...], int] = {}
    index = [blocks.setdefault(tuple(values[start : start + size]), len(blocks)) for start in range(0, len(values), size)]
    return index, [value for block in blocks for value in block]


def array(kind: str, name: str, values: Sequence[int]) -> str:
    """A C++ array, in lines of 140 columns."""
    lines, line = [], " "
    for value in values:
        text = f" {value},"
        if len(line) + len(text) > 140:
            lines.append(line)
            line = " "
        line += text
    return f"const {kind} {name}[{len(values)}] = {{\n" + "\n".join([*lines, line]) + "\n};\n"


def render(answers: Answers) -> str:
    """The C++ file."""
    records: dict[tuple[int, int, int], int] = {}
    rows = []
    for point in range(LIMIT):
        small = answers.lower.get(point, "")
        delta = ord(small) - point if len(small) == 1 else 0
        rows.append(records.setdefault((answers.flags.get(point, 0), answers.order.get(point, 0), delta), len(records)))
    assert len(records) <= 256, len(records)
    pool: list[int] = [0]
    places: dict[str, int] = {}
    offsets = [0] * LIMIT
    for point, parts in answers.decomposed.items():
        if parts not in places:
            places[parts] = len(pool)
            pool += [len(parts), *map(ord, parts)]
        offsets[point] = places[parts]
    many = [number for point, small in answers.lower.items() if len(small) > 1 for number in (point, len(small), *map(ord, small))]
    index, blocks = table(rows, BLOCK)
    parts_index, parts_blocks = table(offsets, BLOCK)
    assert max(index) < 65536
    assert max(parts_index) < 256
    assert len(pool) < 65536
    written = ", ".join(f"{{{flags}, {order}, {delta}}}" for flags, order, delta in records)
    lines, line = [], " "
    for text in written.split(", {"):
        text = " " + (text if text.startswith("{") else "{" + text) + ","
        if len(line) + len(text) > 140:
            lines.append(line)
            line = " "
        line += text
    return (
        "// Written by make_unicode_tables.py from the answers of tokenizers; unicode_tables.h says what each array is.\n"
        '#include "encoder/unicode_tables.h"\n\nnamespace nf::encoder::unicode {\n\n'
        + f"const Record kRecords[{len(records)}] = {{\n" + "\n".join([*lines, line]) + "\n};\n\n"
        + array("std::uint16_t", "kRecordIndex", index) + "\n"
        + array("std::uint8_t", "kRecordBlocks", blocks) + "\n"
        + array("std::uint8_t", "kPartsIndex", parts_index) + "\n"
        + array("std::uint16_t", "kPartsBlocks", parts_blocks) + "\n"
        + array("std::uint32_t", "kParts", pool) + "\n"
        + array("std::uint32_t", "kLowerMany", [*many, 0]) + "\n"
        + "}  // namespace nf::encoder::unicode\n"
    )  # fmt: skip


def main() -> int:
    text = render(ask())
    if "--check" in sys.argv[1:]:
        return int(not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text)
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
