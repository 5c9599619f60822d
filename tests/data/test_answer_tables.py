"""Names of answers, wherever they are read: one for each row of the answer head, each row once, or a refusal."""

import json
import logging

import numpy as np
import pytest

from lxmert_tf import LxmertConfig
from lxmert_tf.answers import by_row, config_answers, model_answers, read_answers

NAMES = {0: "no", 1: "yes", 2: "maybe"}


def test_rows_are_integers_or_their_digits():
    assert by_row([("0", "a"), (np.int64(10), "b"), (2**31, "c"), ("2", "10")]) == {
        0: "a",
        10: "b",
        2**31: "c",
        2: "10",
    }


def served(tmp_path, text, answers=2):
    """What a server is given of a file of answers."""
    (tmp_path / "label2ans.json").write_text(text)
    return list(model_answers(tmp_path, LxmertConfig(num_qa_labels=answers)))


def test_a_server_reads_lists_and_objects_of_either_direction(tmp_path):
    for text in ('["0", "yes"]', '{"yes": 1, "0": 0}', '{"1": "yes", "0": "0"}'):
        assert served(tmp_path, text) == ["0", "yes"]
    assert served(tmp_path, '{"1": 0, "0": 1}') == ["1", "0"]  # numbers are rows
    assert served(tmp_path, '[{"ans": "0", "dsets": ["vqa"]}, {"ans": "yes"}]') == ["0", "yes"]  # as in pretraining


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('["a", "a"]', "answer 'a' is in the table twice, at 0 and 1"),
        ('["a", 3]', "answer 1 must be text, got 3"),
        ('["a"]', r"it names 1 answers, but the answer head has 2 \(rows 0..1\)"),
        ("{}", "it names 0 answers"),
        ('{"a": 0, "b": 0}', "row 0 has two answers, 'a' and 'b'"),
        ('{"a": 0, "b": 1, "c": 1}', "row 1 has two answers, 'b' and 'c'"),
        ('{"a": 0, "a": 1}', "an object has the key 'a' twice"),
        ('{"0": "a", "1": "b", "0": "c"}', "an object has the key '0' twice"),
        ('{"a": 0, "b": 2}', "row 1 of the answer head has no answer, but there is one for row 2"),
        ('{"1": "a", "2": "b"}', "row 0 of the answer head has no answer, but there is one for row 2"),
        ('{"a": 0, "b": true}', "True is not a row"),
        ('{"a": 0, "b": 1.0}', "1.0 is not a row"),
        ('{"a": 0, "b": null}', "None is not a row"),
        ('{"a": 0, "b": -1}', "-1 is not a row"),
        ('{"a": 0, "b": "1"}', "'a' is not a row"),
        ('{"1": "a", "01": "b"}', "'01' is not a row"),
        ('{"0": "a", " 1": "b"}', "' 1' is not a row"),
        ('{"0": "a", "+1": "b"}', r"'\+1' is not a row"),
        ('{"0": "a", "1.0": "b"}', "'1.0' is not a row"),
        ('{"0": "a", "٤": "b"}', "'٤' is not a row"),
        ('{"0": "a", "1": 5}', "answer 1 must be text, got 5"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_server_is_given_no_answers_whose_rows_are_unclear(tmp_path, text, complaint):
    with pytest.raises(ValueError, match=complaint) as caught:
        served(tmp_path, text)
    assert str(tmp_path / "label2ans.json") in str(caught.value)


def test_a_table_is_read_from_either_kind_of_list(tmp_path):
    for content in (["a", "b"], [{"ans": "a"}, {"ans": "b", "dsets": []}]):
        (tmp_path / "a.json").write_text(json.dumps(content))
        assert read_answers(tmp_path / "a.json").answers == ("a", "b")


@pytest.mark.parametrize(
    "text",
    ['["a", "a"]', '[{"ans": "a"}, {"ans": "a"}]', '{"a": 0, "b": 0}', '[{"ans": "a", "ans": "b"}]', '["a", true]'],
)
def test_a_table_of_unclear_rows_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json"):
        read_answers(tmp_path / "a.json")


def read_of(config, reader, tmp_path):
    return config_answers(config) if reader == "training" else model_answers(tmp_path, config)


@pytest.mark.parametrize("reader", ["training", "serving"])
def test_names_in_the_config(reader, tmp_path, caplog):
    config = LxmertConfig(num_qa_labels=3, id2label=dict(reversed(NAMES.items())))
    assert list(read_of(config, reader, tmp_path)) == ["no", "yes", "maybe"]
    (tmp_path / "label2ans.json").write_text('["a", "b", "c"]')
    assert list(model_answers(tmp_path, config)) == ["no", "yes", "maybe"]
    (tmp_path / "label2ans.json").unlink()
    assert read_of(LxmertConfig(num_qa_labels=3), reader, tmp_path) is None
    for count in (2, 3):
        placeholders = {row: f"LABEL_{row}" for row in range(count)}
        assert read_of(LxmertConfig(num_qa_labels=3, id2label=placeholders), reader, tmp_path) is None
    assert not caplog.records
    config = LxmertConfig(num_qa_labels=3, id2label={1: "a", 2: "b", 3: "c"})
    with pytest.raises(ValueError, match="id2label in the config: row 0 of the answer head has no answer"):
        read_of(config, reader, tmp_path)


@pytest.mark.parametrize("reader", ["training", "serving"])
@pytest.mark.parametrize("names", [{0: "LABEL_0", 1: "no"}, {**NAMES, 3: "perhaps"}])
def test_names_of_another_number_are_told_in_one_line(reader, names, tmp_path, caplog):
    config = LxmertConfig(num_qa_labels=3, id2label=names)
    assert read_of(config, reader, tmp_path) is None
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("lxmert_tf", logging.WARNING)
    assert f"id2label in the config names {len(names)} answers, but num_qa_labels is 3" in record.getMessage()
    (tmp_path / "label2ans.json").write_text('["a", "b", "c"]')
    assert list(model_answers(tmp_path, config)) == ["a", "b", "c"]
    assert list(config_answers(config, len(names))) == list(names.values())
