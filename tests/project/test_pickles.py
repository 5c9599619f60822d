"""Pickles of arrays: read as they were written; hostile ones are refused, and never fill the memory."""

import pickle
import tracemalloc
from collections import OrderedDict

import numpy as np
import pytest
from support.pickles import BOMBS, HOSTILE

from lxmert_tf.pickles import parse_pickle


def test_pickles_of_numpy_read_as_they_were_written():
    rng = np.random.default_rng(0)
    values = {
        "floats": rng.standard_normal((3, 4)).astype("f4"),
        "fortran": np.asfortranarray(rng.standard_normal((3, 4))),
        "big": np.arange(6, dtype=">i8").reshape(2, 3),
        "empty": np.zeros((0, 4), "f2"),
        "text": np.array(["a", "bc"]),
        "scalar": np.float32(1.5),
        "number": 7,
        "name": "é",
        "list": [1, b"2"],
    }
    for protocol in range(6):
        got = parse_pickle(pickle.dumps(values, protocol))
        assert set(got) == set(values)
        for name, value in values.items():
            np.testing.assert_array_equal(got[name], value, strict=isinstance(value, np.ndarray))


def test_ordered_dicts_are_dicts():
    assert parse_pickle(pickle.dumps(OrderedDict(a=1, b=OrderedDict(c=2)))) == {"a": 1, "b": {"c": 2}}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_pickles_are_refused(case, capsys):
    data, complaint = HOSTILE[case]
    with pytest.raises(ValueError, match=complaint):
        parse_pickle(data)
    assert not capsys.readouterr().out


@pytest.mark.parametrize("case", BOMBS)
def test_what_a_pickle_holds_takes_no_more_than_it(case):
    tracemalloc.start()
    try:
        values = parse_pickle(BOMBS[case])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(values["x"]) >= 200
    assert peak < 10 * (1 << 20)
