"""From measurements to verdicts: the rule by which every claim is judged, and nothing typed by hand.

A check compares one metric of one variant with a threshold. A measured check takes the 95 % interval over seeds
(jepa.measures.intervals): it holds if the whole interval meets the threshold, fails if the whole interval misses it,
else it is open; fewer seeds than the claim demands, or the smoke profile, leave it open too. An identity check, true by
algebra, compares every row exactly: it holds if all meet the threshold, fails if any misses it. A claim fails if any
check fails, holds if all hold, else it is open. A suspended claim is open whatever its checks say, for the reason that
it states.
"""

import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jepa.measures.intervals import SCALES, interval

PROFILES = ("smoke", "cpu", "gpu")
VERDICTS = ("holds", "fails", "open")
OPERATORS = {"<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt}
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


class Measurement(NamedTuple):
    """One row of measurements.csv; `count` is the number of trials behind a rate, None otherwise."""

    claim: str
    variant: str
    seed: int
    metric: str
    value: float
    count: int | None


@dataclass(frozen=True)
class Check:
    """One condition of a claim: metric of variant, op, threshold (in the metric's unit).

    `kind` is "identity" or "measured"; `scale` is the interval's (linear, log, logit); a threshold may differ by
    profile, {"cpu": 0.95, "gpu": 0.98}, and the smoke profile then shows the cpu one.
    Raises: ValueError naming the field that is malformed.
    """

    metric: str
    variant: str
    op: str
    threshold: float | Mapping[str, float]
    kind: str
    scale: str = "linear"

    def __post_init__(self) -> None:
        for name in ("metric", "variant"):
            value = getattr(self, name)
            if not isinstance(value, str) or not NAME.fullmatch(value):
                raise ValueError(f"{name}: expected a name in lower_case, found {value!r}")
        _one_of("op", self.op, OPERATORS)
        _one_of("kind", self.kind, ("identity", "measured"))
        _one_of("scale", self.scale, SCALES)
        if self.kind == "identity" and self.scale != "linear":
            raise ValueError(f"scale: expected none for an identity, which has no interval, found {self.scale!r}")
        if isinstance(self.threshold, Mapping) and set(self.threshold) != {"cpu", "gpu"}:
            raise ValueError(f"threshold: expected a number or one each for cpu and gpu, found {self.threshold!r}")
        for number in map(self.threshold_at, ("cpu", "gpu")):
            if type(number) not in (int, float) or not math.isfinite(number):
                raise ValueError(f"threshold: expected a finite number, found {number!r}")

    def threshold_at(self, profile: str) -> float:
        """Return the threshold in force at a profile."""
        if isinstance(self.threshold, Mapping):
            return self.threshold["gpu" if profile == "gpu" else "cpu"]
        return self.threshold


@dataclass(frozen=True)
class Claim:
    """One claim of the ledger; `seeds` is the number each measured check demands, None if the claim fixes none.

    `suspended` says why the rule does not carry the statement, so that the claim is open until it is measured again;
    `caveat` says what a second look found against a verdict that is kept.
    Raises: ValueError naming the field that is malformed.
    """

    id: str
    kind: str
    statement: str
    source: str
    notebook: str
    seeds: int | None
    checks: tuple[Check, ...]
    history: Sequence[Mapping[str, str]] = ()
    suspended: str | None = None
    caveat: str | None = None

    def __post_init__(self) -> None:
        _one_of("kind", self.kind, ("identity", "measured", "both"))
        given = [name for name in ("suspended", "caveat") if getattr(self, name) is not None]
        for name in ("statement", "source", *given):
            if not isinstance(getattr(self, name), str) or not getattr(self, name).strip():
                raise ValueError(f"{name}: expected a sentence, found {getattr(self, name)!r}")
        if not isinstance(self.notebook, str) or not re.fullmatch(r"\d\d_" + NAME.pattern, self.notebook):
            raise ValueError(f"notebook: expected a name such as 01_energies_and_capacity, found {self.notebook!r}")
        if self.seeds is not None and (type(self.seeds) is not int or self.seeds < 2):
            raise ValueError(f"seeds: expected a whole number of at least 2, or null, found {self.seeds!r}")
        expected = {"identity", "measured"} if self.kind == "both" else {self.kind}
        found = {check.kind for check in self.checks}
        if self.checks and found != expected:
            raise ValueError(f"checks: expected of kind {' and '.join(sorted(expected))}, found {sorted(found)}")
        keys = [(check.metric, check.variant, check.op) for check in self.checks]
        if len(keys) != len(set(keys)):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"checks: expected each once, found {' '.join(twice)} twice")


def judge_claim(claim: Claim, rows: Iterable[Measurement], profile: str) -> dict[str, Any]:
    """Return the ledger's entry of one claim: verdict, the claim's own words and numbers, and every check's entry.

    A suspended claim is open; its checks' entries are computed like those of any other.

    Args:
        claim: the claim.
        rows: measurements in any order; those of other claims are ignored.
        profile: smoke, cpu or gpu.

    Raises:
        ValueError: for an unknown profile, or measurements that the check's scale does not admit.
    """
    _one_of("profile", profile, PROFILES)
    rows = sorted((row for row in rows if row.claim == claim.id), key=lambda row: row.seed)
    checks = [_judge_check(claim, check, rows, profile) for check in claim.checks]
    suspended, caveat = _on_one_line(claim.suspended), _on_one_line(claim.caveat)
    verdict = "open" if suspended else combine(check["verdict"] for check in checks)
    reasons = dict.fromkeys(check["reason"] for check in checks if check["reason"]) or {"no checks": None}
    reason = f"suspended: {suspended}" if suspended else "; ".join(reasons)
    return {
        "verdict": verdict,
        "reason": reason if verdict == "open" else None,
        "suspended": suspended,
        "caveat": caveat,
        "kind": claim.kind,
        "statement": _on_one_line(claim.statement),
        "source": claim.source,
        "notebook": claim.notebook,
        "seeds": claim.seeds,
        "checks": checks,
    }


def combine(verdicts: Iterable[str]) -> str:
    """Return a claim's verdict from its checks': fails if any fails, holds if all (at least one) hold, else open."""
    found = set(verdicts)
    if "fails" in found:
        return "fails"
    return "holds" if found == {"holds"} else "open"


def _judge_check(claim: Claim, check: Check, rows: list[Measurement], profile: str) -> dict[str, Any]:
    """The ledger's entry of one check, judged on the full numbers and shown with six digits."""
    rows = [row for row in rows if (row.metric, row.variant) == (check.metric, check.variant)]
    threshold = check.threshold_at(profile)
    estimate, low, high, verdict, reason = None, None, None, "open", "not measured yet"
    try:
        if rows and check.kind == "identity":
            worst = max if check.op in ("<=", "<") else min
            estimate = low = high = worst(row.value for row in rows)
            verdict, reason = _compare(check.op, low, high, threshold)
        elif rows:
            estimate, low, high, _ = interval([row.value for row in rows], check.scale, _counts(check, rows))
            verdict, reason = _compare(check.op, low, high, threshold)
            demanded = claim.seeds or 2
            if profile == "smoke":
                verdict, reason = "open", "open (smoke)"
            elif len(rows) < demanded:
                verdict, reason = "open", f"{len(rows)} of {demanded} seeds"
    except ValueError as error:
        raise ValueError(f"claim {claim.id}, metric {check.metric}, variant {check.variant}: {error}") from error
    rule = {name: getattr(check, name) for name in ("metric", "variant", "op", "threshold", "kind")}
    shown = {name: _shown(value) for name, value in (("estimate", estimate), ("low", low), ("high", high))}
    return rule | {"threshold": threshold} | shown | {"n": len(rows), "verdict": verdict, "reason": reason}


def _compare(op: str, low: float, high: float, threshold: float) -> tuple[str, str | None]:
    """Verdict and reason: both limits meet the threshold, both miss it, or they lie on its two sides."""
    meets = {OPERATORS[op](limit, threshold) for limit in (low, high)}
    if len(meets) == 2:
        return "open", "interval straddles the threshold"
    return ("holds" if meets == {True} else "fails"), None


def _shown(value: float | None) -> float | None:
    """Six significant digits; None for no number and for an interval's missing end."""
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None


def _counts(check: Check, rows: list[Measurement]) -> list[int] | None:
    """The trials behind a rate; either every seed states them or none does."""
    counts = [row.count for row in rows]
    if check.scale != "logit" or set(counts) == {None}:
        return None
    if None in counts:
        raise ValueError(f"count: expected for every seed or for none, found {counts}")
    return counts


def _on_one_line(sentence: str | None) -> str | None:
    """The sentence without the line breaks of the file it stands in; None for none."""
    return None if sentence is None else " ".join(sentence.split())


def _one_of(name: str, value: Any, known: Iterable[str]) -> None:
    """Raise unless the value is one of the known ones."""
    if value not in tuple(known):
        raise ValueError(f"{name}: expected one of {', '.join(known)}, found {value!r}")
