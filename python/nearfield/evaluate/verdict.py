"""The answer to "should the tuned model replace the base?", by fixed rules, in a sentence with its figures, and advice on keywords."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nearfield.evaluate.significance import Paired

Answer = Literal["ship", "marginal", "do not ship"]

# A lower mean on general questions by more than one point of nDCG is harm that users outside the domain notice.
GUARD_LIMIT = 0.01
# A gain under half a point does not pay for encoding a corpus again, however sure it is.
TINY_GAIN = 0.005
# What "sure" means: the 95 % interval leaves out zero and the randomization test agrees.
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer and the sentence that explains it.

    Attributes:
        answer: ``"ship"``: better for sure, and the guard holds. ``"marginal"``: a gain that may be chance or is tiny, without harm.
            ``"do not ship"``: not better, or the guard fell by more than the limit.
        sentence: the reason with its figures, for people; in an `EvalReport`, followed by its advice on keywords.
    """

    answer: Answer
    sentence: str


def judge(
    before: float, after: float, change: Paired, *, guard: Paired | None = None, metric: str = "nDCG@10", guard_limit: float = GUARD_LIMIT
) -> Verdict:
    """Decides by these rules, the first that applies:

    1. the guard's measured mean fell by more than ``guard_limit``: do not ship. The mean decides, not its interval: a guard set
       that is too small to prove harm must not be a way round it;
    2. the mean did not rise: do not ship;
    3. the interval holds zero, or p is above 0.05, or the gain is under 0.005: marginal;
    4. otherwise: ship.

    Args:
        before: the mean of the model that is in use.
        after: the mean of the new model on the same queries.
        change: the paired difference, new minus old.
        guard: the paired difference on the guard set, or None where there is none.
        metric: its name in the sentence.
        guard_limit: the largest drop that is accepted, on the metric's scale of 0 to 1.

    >>> judge(0.70, 0.80, Paired(0.10, 0.08, 0.12, 0.0001)).answer
    'ship'
    """
    rise = f"{metric} {'rises' if change.mean > 0 else 'falls'} from {before:.3f} to {after:.3f}"
    if change.mean == 0:
        rise = f"{metric} stays at {after:.3f}"
    figures = f"({_span(change)}, p {_p(change.p)})"
    sure = is_sure(change)
    guard_words = "" if guard is None else _guard_words(guard, guard_limit)
    # measured means carry rounding of about 1e-16; a drop of exactly the limit is still within it
    if guard is not None and -guard.mean > guard_limit + 1e-9:
        return Verdict(
            "do not ship",
            f"Do not ship: {guard_words}, although {rise} {figures}."
            if change.mean > 0
            else f"Do not ship: {rise} {figures}; {guard_words}.",
        )
    tail = f"; {guard_words}." if guard_words else "; no guard set was given, so general knowledge was not checked."
    if change.mean <= 0:
        why = "and that is not chance" if sure else "so it is not better"
        return Verdict("do not ship", f"Do not ship: {rise} {figures}, {why}{tail}")
    if not sure:
        return Verdict("marginal", f"Marginal: {rise} {figures}, which may be chance{tail}")
    if change.mean < TINY_GAIN:
        return Verdict(
            "marginal", f"Marginal: {rise} {figures}, sure but under {TINY_GAIN:.3f}, too little to pay for encoding a corpus again{tail}"
        )
    return Verdict("ship", f"Ship: {rise} {figures}{tail}")


def advise(keywords: float, keywords_change: Paired, fused: float, fused_change: Paired, *, metric: str = "nDCG@10") -> str:
    """Says whether keywords beat the model, whether both together do, and what follows. It does not change the answer.

    Args:
        keywords: the mean of BM25.
        keywords_change: its paired difference to the model; above 0 where keywords are better.
        fused: the mean of BM25 fused with the model.
        fused_change: its paired difference to the model.
        metric: its name in the text.

    >>> lost = Paired(-0.1, -0.12, -0.08, 0.0001)
    >>> advise(0.7, lost, 0.79, Paired(-0.01, -0.02, 0.001, 0.07)).startswith("The model beats keywords: BM25 reaches nDCG@10 0.700")
    True
    """
    beaten, helped = is_sure(keywords_change) and keywords_change.mean > 0, is_sure(fused_change) and fused_change.mean >= TINY_GAIN
    unproven = not is_sure(keywords_change)
    start = "Keywords beat the model" if beaten else "The model is not shown to beat keywords" if unproven else "The model beats keywords"
    if helped and not (beaten and fused <= keywords):
        end = "Search by keywords as well and fuse the two."
    elif beaten:
        end = "Search by keywords instead."
    elif unproven:
        end = "Keywords cost less to serve; only more queries can show a difference."
    else:
        end = "Keywords need not be added."
    if not is_sure(fused_change):
        gain = "which may be chance"
    elif fused_change.mean < 0:
        gain = "worse than the model alone"
    else:
        gain = "better than the model alone" if helped else "sure, but too little to pay for a second search"
    first = f"BM25 reaches {metric} {keywords:.3f} ({_span(keywords_change)}, p {_p(keywords_change.p)})"
    second = f"fused with the model by reciprocal rank {fused:.3f} ({_span(fused_change)}, p {_p(fused_change.p)}), {gain}"
    return f"{start}: {first}; {second}. {end}"


def is_sure(change: Paired) -> bool:
    """Whether a difference is more than chance: its 95 % interval leaves out zero and p is at most 0.05.

    >>> is_sure(Paired(0.1, 0.05, 0.15, 0.001)), is_sure(Paired(0.1, -0.05, 0.25, 0.2))
    (True, False)
    """
    return (change.low > 0 or change.high < 0) and change.p <= ALPHA


def _guard_words(guard: Paired, limit: float) -> str:
    verb = "falls" if guard.mean < 0 else "rises"
    moved = f"the guard {verb} by {abs(guard.mean):.3f} (95 % interval {guard.low:+.3f} to {guard.high:+.3f})"
    if -guard.mean > limit + 1e-9:
        return f"{moved}, more than the limit of {limit:.3f}"
    return f"{moved}, within the limit of {limit:.3f}" if guard.mean < 0 else moved


def _span(change: Paired) -> str:
    if change.low != change.low:
        return f"{change.mean:+.3f}, too few queries for an interval"
    return f"{change.mean:+.3f}, 95 % interval {change.low:+.3f} to {change.high:+.3f}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"
