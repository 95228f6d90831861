"""What was measured, and the figures that the table shows of it.

A row is compared with bare Envoy round by round, and the median of the differences counts: whatever slows a
machine down for longer than one round then slows both down. The spread is half the distance between the
quartiles of those differences: a difference between two rows that is not larger than it means nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles


@dataclass(frozen=True)
class Measurement:
    """One row's turn in one round."""

    requests: int
    seconds: float
    # Of the Envoy under test.
    cpu_seconds: float
    p50_ms: float
    p99_ms: float
    callouts: int
    # CPU that neither the bench nor its servers used: other programs, or other machines on the same hardware.
    foreign_cpu_seconds: float

    @property
    def cpu_us(self) -> float:
        """CPU time for a request, in microseconds."""
        return self.cpu_seconds / self.requests * 1e6

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


@dataclass(frozen=True)
class Summary:
    """One row over all rounds: medians."""

    key: str
    title: str
    cpu_us: float
    extra_us: float
    extra_spread_us: float
    cpu_ratio: float
    rate: float
    rate_ratio: float
    rate_ratio_spread: float
    p50_ms: float
    p99_ms: float
    # How much of its CPU the Envoy under test used: under 0.9, something else limited the row's rate.
    busy: float
    callouts: float


def summarize(key: str, title: str, rounds: Sequence[Measurement], bare: Sequence[Measurement]) -> Summary:
    """`bare` holds the same rounds of bare Envoy, in the same order."""

    def middle(figure: Callable[[Measurement], float]) -> float:
        return median(map(figure, rounds))

    pairs = list(zip(rounds, bare, strict=True))
    extras = [own.cpu_us - other.cpu_us for own, other in pairs]
    rate_ratios = [own.rate / other.rate for own, other in pairs]
    return Summary(
        key=key,
        title=title,
        cpu_us=middle(lambda one: one.cpu_us),
        extra_us=median(extras),
        extra_spread_us=spread(extras),
        cpu_ratio=median(own.cpu_us / other.cpu_us for own, other in pairs),
        rate=middle(lambda one: one.rate),
        rate_ratio=median(rate_ratios),
        rate_ratio_spread=spread(rate_ratios),
        p50_ms=middle(lambda one: one.p50_ms),
        p99_ms=middle(lambda one: one.p99_ms),
        busy=middle(lambda one: one.cpu_seconds / one.seconds),
        callouts=middle(lambda one: one.callouts / one.requests),
    )


def spread(values: Sequence[float]) -> float:
    """Half the distance between the quartiles; 0 for a single value."""
    if len(values) == 1:
        return 0.0
    first, _, third = quantiles(values, n=4, method="inclusive")
    return (third - first) / 2


COLUMNS: Mapping[str, Callable[[Summary], str]] = {
    "row": lambda row: row.title,
    "CPU us/req": lambda row: f"{row.cpu_us:.1f}",
    "over bare us": lambda row: f"{row.extra_us:+.1f} ±{row.extra_spread_us:.1f}" if row.key != "bare" else "",
    "x bare": lambda row: f"{row.cpu_ratio:.2f}",
    "req/s": lambda row: f"{row.rate:.0f}",
    "of bare": lambda row: f"{row.rate_ratio:.0%}",
    "p50 ms": lambda row: f"{row.p50_ms:.2f}",
    "p99 ms": lambda row: f"{row.p99_ms:.2f}",
    "Envoy's CPU": lambda row: f"{row.busy:.0%}",
    "callouts/req": lambda row: f"{row.callouts:.2f}",
}


def table(rows: Sequence[Summary]) -> str:
    """All rows, for people."""
    return markdown(list(COLUMNS), [[cell(row) for cell in COLUMNS.values()] for row in rows])


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table, aligned for terminals."""
    cells = [head, *body]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]

    def line(texts: Sequence[str]) -> str:
        first, *rest = zip(texts, widths, strict=True)
        return "| " + " | ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in rest)]) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([line(cells[0]), rule, *map(line, cells[1:])])


@dataclass(frozen=True)
class CostTarget:
    """A promise of the project about a row's extra CPU: at most `factor` times that of another row."""

    row: str
    factor: float
    other: str

    def verdict(self, rows: Mapping[str, Summary]) -> str | None:
        """`None` if the bench didn't measure both rows."""
        own, other = rows.get(self.row), rows.get(self.other)
        if own is None or other is None:
            return None
        limit = self.factor * other.extra_us
        # Noise of the limit counts, too.
        noise = own.extra_spread_us + self.factor * other.extra_spread_us
        outcome = judge(own.extra_us - limit, noise)
        return f"{self.row} adds {own.extra_us:.1f} us, {self.factor:g} x {self.other} is {limit:.1f} us: {outcome}"


@dataclass(frozen=True)
class RateTarget:
    """A promise of the project about a row's throughput: at least this share of bare Envoy's."""

    row: str
    share: float

    def verdict(self, rows: Mapping[str, Summary]) -> str | None:
        """`None` if the bench didn't measure the row."""
        own = rows.get(self.row)
        if own is None:
            return None
        outcome = judge(self.share - own.rate_ratio, own.rate_ratio_spread)
        return f"{self.row} has {own.rate_ratio:.1%} of bare Envoy's throughput, at least {self.share:.0%}: {outcome}"


def judge(excess: float, noise: float) -> str:
    """What to say of a figure that is over its limit by `excess`."""
    if abs(excess) <= noise:
        return "within the noise"
    return "missed" if excess > 0 else "met"


TARGETS = (
    CostTarget("cached", 2, "noop"),
    RateTarget("cached", 0.85),
    CostTarget("cached", 0.25, "ext-authz"),
    CostTarget("cold", 1, "ext-authz"),
)


def verdicts(rows: Sequence[Summary]) -> list[str]:
    """One line for each target that can be judged."""
    by_key = {row.key: row for row in rows}
    return [line for target in TARGETS if (line := target.verdict(by_key)) is not None]
