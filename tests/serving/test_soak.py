"""Half a minute of what `soak.py --minutes 10` does."""

import pytest
from soak import GROWTH, soak


@pytest.mark.slow
def test_eight_clients_for_half_a_minute_meet_no_error_and_memory_stays(exports):
    result = soak(30, exports / "models", exports / "qa")
    assert not result["failures"], result
    assert result["good"] > 100 and result["bad"] > 0
    assert result["growth"] <= GROWTH, result
