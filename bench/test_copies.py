import unittest

from copies import Portion, difference_of, lines_of


class Differences(unittest.TestCase):
    def test_are_paired(self) -> None:
        # The machine became slower from round to round; the difference did not.
        self.assertEqual(difference_of([10, 20, 400], [15, 25, 405]), "+5 ± 0")
        self.assertEqual(difference_of([10, 10, 10, 10], [9, 11, 13, 15])[:2], "+2")

    def test_one_round_has_no_error(self) -> None:
        self.assertEqual(difference_of([1], [3]), "+2 ± nan")

    def test_each_call_has_a_line_for_each_number_of_copies(self) -> None:
        one, two = [Portion(10, 20, 30)] * 2, [Portion(11, 22, 33)] * 2
        operations = {(0, "read"): [(2, 0)], (1, "read"): [(2, 0), (2, 1)]}
        self.assertEqual(
            lines_of("read", one, two, operations),
            [
                ["read", "1", "10", "20", "30", "2+0"],
                ["", "2", "+1 ± 0", "+2 ± 0", "+3 ± 0", "2+0, 2+1"],
            ],
        )
