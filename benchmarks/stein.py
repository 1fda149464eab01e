"""Stein samplers: steps against peers, mirrored methods, discrepancies, moments, Pareto sets.

Times are medians over rounds in which the contenders take turns; peers that are not installed
(msvgd, coreax, stein-thinning) are left out. Moments and distances are from single runs with fixed
keys; each row says what is compared and what it has to be.
"""

import _stein_discrepancies
import _stein_mirrored
import _stein_moments
import _stein_pareto
import _stein_steps
from _harness import Report, parse_options

PARTS = (_stein_steps, _stein_discrepancies, _stein_moments, _stein_mirrored, _stein_pareto)


def main() -> None:
    options = parse_options("Stein samplers")
    report = Report(options)
    for part in PARTS:
        part.add_rows(report)
    report.finish()


if __name__ == "__main__":
    main()
