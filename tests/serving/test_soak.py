"""A little of what `soak.py --minutes 10` does; memory is judged there, as it grows until every size was seen."""

import pytest
from soak import soak


@pytest.mark.slow
def test_eight_clients_meet_no_error(exports):
    result = soak(5, exports / "models", exports / "qa", requests=20)
    assert not result["failures"], result
    assert result["good"] >= 8 * 18 and result["bad"] >= 8
