"""Half a minute of what `soak.py --minutes 10` does; memory is judged there, as it grows until every size was seen."""

import pytest
from soak import soak


@pytest.mark.slow
def test_eight_clients_for_half_a_minute_meet_no_error(exports):
    result = soak(30, exports / "models", exports / "qa")
    assert not result["failures"], result
    assert result["good"] > 100 and result["bad"] > 0
