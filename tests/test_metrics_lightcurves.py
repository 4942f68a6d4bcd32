import math

import pytest
from builders import record

from vglm.evaluation.score.metrics import ALL_METRICS
from vglm.evaluation.score.metrics.lightcurves import read_amplitude, read_period


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("It repeats every 0.571 days.", 0.571),
        ("An RR Lyrae star with a period of 13.7 hours and an amplitude of 0.94 mag.", 13.7 / 24),
        ("period: 90 min", 90 / 1440),
        ("period 86400 s", 1.0),
        ("observed for 27 days, period 2.5 d", 2.5),
        ("周期约为13.7小时，振幅0.94等", 13.7 / 24),
        ("周期为２.５天", 2.5),
        ("1.2e-1 days", 0.12),
        ("27 days of data, 3 days apart", None),
        ("period unknown", None),
        ("period 5", None),
        ("a 5 dwarf", None),
    ],
)
def test_read_period(text: str, days: float | None) -> None:
    assert read_period(text) == (None if days is None else pytest.approx(days))


@pytest.mark.parametrize(
    ("text", "magnitudes"),
    [
        ("brightness 12.3 mag, amplitude 0.94 mag", 0.94),
        ("amplitude of 35 mmag", 0.035),
        ("周期0.5天，振幅约0.94等", 0.94),
        ("变幅为1.2星等", 1.2),
        ("amplitude 0.9", None),
    ],
)
def test_read_amplitude(text: str, magnitudes: float | None) -> None:
    assert read_amplitude(text) == (None if magnitudes is None else pytest.approx(magnitudes))


def test_errors_by_hand() -> None:
    pairs = [
        ("period 2 days, amplitude 0.5 mag", "period 2.1 days, amplitude 0.4 mag", None),
        ("period 10 days, amplitude 1 mag", "period 5 days", None),
        ("周期4天", "no idea", None),
        ("周期4天", "", "unreadable"),
        ("a nova", "period 3 days", None),
    ]
    arm = [record(prediction, reference, error=error) for reference, prediction, error in pairs]
    assert ALL_METRICS["period_error"].score(arm) == pytest.approx((0.05 + 0.5) / 2)
    assert ALL_METRICS["period_within_10_percent"].score(arm) == 1 / 4
    assert ALL_METRICS["amplitude_error"].score(arm) == pytest.approx(0.2)
    assert ALL_METRICS["amplitude_within_10_percent"].score(arm) == 0.0
    assert math.isnan(ALL_METRICS["period_error"].score(arm[2:]))
