"""python3 -m unittest discover -s bench"""

import unittest

from results import CostTarget, Measurement, RateTarget, Summary, spread, summarize, table


def turn(cpu_us: float, rate: int = 1000) -> Measurement:
    """A second with this many requests at this cost."""
    return Measurement(
        requests=rate,
        seconds=1.0,
        cpu_seconds=cpu_us * rate / 1e6,
        p50_ms=1.0,
        p99_ms=2.0,
        callouts=rate,
        foreign_cpu_seconds=0.0,
    )


def summary(key: str, extra_us: float, spread_us: float) -> Summary:
    return Summary(key, key, 0.0, extra_us, spread_us, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


class Summaries(unittest.TestCase):
    def test_a_row_is_compared_with_bare_envoy_of_the_same_round(self) -> None:
        # The machine is twice as slow in the second round and three times as slow in the third. Differences
        # of medians, or medians over differently sorted rounds, would give other figures.
        bare = [turn(10, 3000), turn(20, 1500), turn(30, 1000)]
        own = [turn(15, 1500), turn(30, 750), turn(45, 500)]
        row = summarize("own", "own", own, bare)
        self.assertAlmostEqual(row.cpu_us, 30)
        self.assertAlmostEqual(row.extra_us, 10)
        self.assertAlmostEqual(row.cpu_ratio, 1.5)
        self.assertAlmostEqual(row.rate_ratio, 0.5)
        self.assertAlmostEqual(row.callouts, 1)

    def test_rounds_that_lack_a_partner_are_an_error(self) -> None:
        with self.assertRaises(ValueError):
            summarize("own", "own", [turn(1), turn(2)], [turn(1)])

    def test_one_outlier_does_not_widen_the_spread(self) -> None:
        self.assertEqual(spread([7.0]), 0)
        self.assertEqual(spread([1.0, 1.0, 1.0, 1.0, 100.0]), 0)
        self.assertEqual(spread([1.0, 2.0, 3.0, 4.0, 5.0]), 1)


class Verdicts(unittest.TestCase):
    def test_a_target_is_judged_beyond_the_noise_only(self) -> None:
        target = CostTarget("own", 2, "other")
        for extra, outcome in ((10, "met"), (19.5, "within the noise"), (20.5, "within the noise"), (25, "missed")):
            rows = {"own": summary("own", extra, 1), "other": summary("other", 10, 0.5)}
            self.assertEqual((target.verdict(rows) or "").rpartition(": ")[2], outcome)
        self.assertIsNone(target.verdict({"own": summary("own", 1, 0)}))

    def test_more_throughput_is_better(self) -> None:
        target = RateTarget("own", 0.85)
        for rate, outcome in ((950, "met"), (855, "within the noise"), (845, "within the noise"), (700, "missed")):
            bare = [turn(10, 1000)] * 3
            own = [turn(10, rate - 10), turn(10, rate), turn(10, rate + 10)]
            rows = {"own": summarize("own", "own", own, bare)}
            self.assertEqual((target.verdict(rows) or "").rpartition(": ")[2], outcome)
        self.assertIsNone(target.verdict({}))


class Table(unittest.TestCase):
    def test_every_line_has_the_same_columns(self) -> None:
        lines = table([summary("bare", 0, 0), summary("a much longer title", 12.34, 0.5)]).splitlines()
        self.assertEqual(len({len(line) for line in lines}), 1)
        self.assertEqual(len({line.count("|") for line in lines}), 1)
        self.assertIn("+12.3 ±0.5", lines[-1])


if __name__ == "__main__":
    unittest.main()
