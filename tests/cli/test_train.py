"""`lxmert-tf train`, `evaluate` and `predict`, from the original's files to a submission."""

import json
import shutil

import h5py
import pytest
from support.data import files_of

from lxmert_tf import LxmertConfig, LxmertTokenizer, TFLxmertForQuestionAnswering
from lxmert_tf.cli import main
from lxmert_tf.data.features.build import build_features
from lxmert_tf.demo.dataset import write_dataset
from lxmert_tf.training import tasks
from lxmert_tf.training.evaluation import Evaluator

TINY = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "l_layers": 1, "r_layers": 0, "x_layers": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A small set for VQA with its features, and the config of a model that is quick to trace."""
    folder = tmp_path_factory.mktemp("data") / "vqa"
    write_dataset(folder, "vqa", num_images=20, feat_dim=8, pictures=False)
    build_features(folder / "features.tsv", folder / "features.h5")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **TINY}))
    return folder


def command(data, output, *more) -> list[str]:
    options = ["--epochs", "2", "--batch-size", "32", "--learning-rate", "1e-3"]
    return list(map(str, ["train", "vqa", *files_of(data), "--output", output, *options, *more]))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A finished run."""
    output = tmp_path_factory.mktemp("runs") / "run"
    assert main(command(data, output)) == 0
    return output


@pytest.mark.slow
def test_the_run_directory_tells_all(data, run):
    record = json.loads((run / "run.json").read_text())
    assert record["options"]["epochs"] == 2
    assert record["options"]["seed"] == 0
    assert record["result"]["steps"] == 2 * record["result"]["history"][0]["step"]
    assert {str(data / name) for name in ("train.json", "valid.json", "features.h5", "vocab.txt")} <= record[
        "files"
    ].keys()
    assert (run / "log.csv").read_text().startswith("epoch,step,seconds,updates,skipped,accuracy,loss")
    assert list((run / "tensorboard").glob("events.*"))
    assert not (run / "backup.safetensors").exists()
    assert json.loads((run / "best" / "training.json").read_text())["task"] == "vqa"
    card = (run / "best" / "README.md").read_text(encoding="utf-8")
    best = record["result"]["history"][record["result"]["best_epoch"] - 1]
    assert f"| `val_accuracy` | {best['val_accuracy']:.4f} |" in card
    assert "| Trained on | `train.json` |\n| Validated on | `valid.json` |\n| Region features | `features.h5` |" in card


@pytest.mark.slow
@pytest.mark.parametrize("name", ["best", "last"])
def test_model_directories_are_self_contained(name, data, run, tmp_path):
    moved = shutil.copytree(run / name, tmp_path / "model")
    answers = json.loads((data / "label2ans.json").read_text())
    config = LxmertConfig.from_pretrained(moved)
    assert [config.id2label[row] for row in range(config.num_qa_labels)] == answers
    assert config.label2id[answers[3]] == 3
    assert len(LxmertTokenizer.from_pretrained(moved)) == config.vocab_size
    assert TFLxmertForQuestionAnswering.from_pretrained(moved).config == config


@pytest.mark.slow
def test_evaluate_prints_one_object_that_agrees_with_training(data, run, capsys):
    arguments = ["--model", run / "best", "--data", data / "valid.json", "--features", data / "features.h5", "--json"]
    capsys.readouterr()
    assert main(["evaluate", "vqa", *map(str, arguments)]) == 0
    found = json.loads(capsys.readouterr().out)
    record = json.loads((run / "run.json").read_text())
    assert found["accuracy"] == pytest.approx(record["result"]["best"], abs=1e-6)
    assert found["examples"] == len(json.loads((data / "valid.json").read_text()))
    assert found["loss"] > 0


@pytest.mark.slow
def test_evaluation_that_encodes_each_image_once_measures_what_keras_does(data, run):
    evaluator = Evaluator("vqa", str(run / "best"), str(data / "features.h5"), batch_size=7)
    dataset = evaluator.dataset([str(data / "valid.json")])
    found = evaluator._measure_by_image(dataset, tasks.metrics("vqa"), 0)
    expected = evaluator._measure(dataset, tasks.metrics("vqa"), 0)
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_limit_is_the_first_images_of_the_set_in_the_order_of_the_feature_file(data, run, tmp_path):
    """The feature file begins with the images of the training set."""
    questions = json.loads((data / "valid.json").read_text())
    (tmp_path / "valid.json").write_text(json.dumps(questions[::-1]))
    evaluator = Evaluator("vqa", str(run / "best"), str(data / "features.h5"))
    found = evaluator.dataset([str(tmp_path / "valid.json")], limit=1).annotations
    assert {annotation.img_id for annotation in found} == {questions[0]["img_id"]}


@pytest.mark.slow
def test_predict_writes_the_submission_of_every_question(data, run, tmp_path):
    output = tmp_path / "predictions.json"
    arguments = ["--model", run / "best", "--data", data / "test.json", "--features", data / "features.h5"]
    assert main(["predict", "vqa", *map(str, arguments), "--output", str(output), "--batch-size", "7"]) == 0
    entries = json.loads(output.read_text())
    questions = json.loads((data / "test.json").read_text())
    assert [entry["question_id"] for entry in entries] == [question["question_id"] for question in questions]
    answers = set(json.loads((data / "label2ans.json").read_text()))
    assert all(entry.keys() == {"question_id", "answer"} and entry["answer"] in answers for entry in entries)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.json"]


@pytest.mark.slow
def test_a_finished_run_says_so_and_does_nothing(data, run, capsys):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    assert main(command(data, run, "--backup-every", "3")) == 0
    assert "is finished: 2 epochs" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
def test_what_a_killed_process_left_is_removed(data, run):
    left = run / "best" / ".partial-x-model.weights.h5"
    left.write_text("half")
    assert main(command(data, run)) == 0
    assert not left.exists()


@pytest.mark.slow
def test_a_training_of_which_every_step_is_skipped_fails(data, tmp_path, capsys):
    features = shutil.copy(data / "features.h5", tmp_path / "features.h5")
    with h5py.File(features, "r+") as file:
        file["image_features"][...] = float("nan")
    arguments = command(data, tmp_path / "run", "--skip-nan", "--epochs", "1")
    arguments[arguments.index("--features") + 1] = str(features)
    assert main(arguments) == 2
    assert "were skipped: the model has learnt nothing" in capsys.readouterr().err


@pytest.mark.slow
def test_a_rerun_with_other_options_names_the_difference(data, run, capsys):
    assert main(command(data, run, "--seed", "5")) == 2
    assert "with seed 0 instead of 5" in capsys.readouterr().err


def test_what_does_not_fit_is_told_in_a_sentence(data, tmp_path, capsys):
    config = json.loads((data / "config.json").read_text())
    other = tmp_path / "config.json"
    other.write_text(json.dumps({**config, "visual_feat_dim": 5}))
    arguments = command(data, tmp_path / "run")
    arguments[arguments.index("--config") + 1] = str(other)
    assert main(arguments) == 2
    assert "8 values each, but the model's config says visual_feat_dim=5" in capsys.readouterr().err
    assert main([*command(data, tmp_path / "large"), "--batch-size", "100000"]) == 2
    assert "too few for a batch of 100000" in capsys.readouterr().err
    assert main(command(data / "nothing", tmp_path / "none")) == 2
    assert "No such file" in capsys.readouterr().err


def without_labels(source, target, number=None):
    """The annotations of `source` in `target`, the first `number` of them without their labels."""
    entries = json.loads(source.read_text())
    for entry in entries[:number]:
        del entry["label"]
    target.write_text(json.dumps(entries))
    return str(target)


@pytest.mark.parametrize(("option", "verb"), [("--train", "train"), ("--valid", "validate")])
def test_sets_without_labels_are_refused_before_anything_is_written(data, tmp_path, capsys, option, verb):
    file = tmp_path / "bare.json"
    arguments = command(data, tmp_path / "run")
    arguments[arguments.index(option) + 1] = without_labels(data / "valid.json", file)
    assert main(arguments) == 2
    assert f"{file}: there are no labels to {verb} on." in capsys.readouterr().err
    without_labels(data / "valid.json", file, 2)
    assert main(arguments) == 2
    assert f"{file}: 2 of {len(json.loads(file.read_text()))} have no label to {verb} on." in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["bare.json"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--seed", "-1"], "seed must be at least 0 and below 2**32, got -1"),
        (["--clip", "-1"], "clip must be above 0, or 0 for none, got -1"),
        (["--accumulate", "5"], "accumulate is 5, but an epoch has only 4 steps of 32"),
        (["--vocab", "none"], "No such file or directory: none"),
        (["--vocab", "no/such/vocab.txt"], "No such file or directory: no/such/vocab.txt"),
        (
            ["--features", "."],
            ". is a directory, which has no fast access; build a file that has",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_options_are_refused_before_anything_is_written(data, tmp_path, capsys, options, complaint):
    assert main(command(data, tmp_path / "run", *options)) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_output_that_is_an_input_is_refused(data, run, tmp_path, capsys):
    assert main(command(data, data / "vocab.txt")) == 2
    assert "would be overwritten, but it is also an input" in capsys.readouterr().err
    arguments = ["--model", run / "best", "--data", data / "test.json", "--features", data / "features.h5"]
    for file in (data / "test.json", data / "features.h5", run / "best" / "config.json"):
        before = file.read_bytes()
        assert main(["predict", "vqa", *map(str, arguments), "--output", str(file)]) == 2
        assert f"{file} would be overwritten, but it is also an input" in capsys.readouterr().err
        assert file.read_bytes() == before


def test_what_is_not_as_the_config_or_the_options_say_is_told(data, tmp_path, capsys):
    config = json.loads((data / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_qa_labels": 7, "max_position_embeddings": 9}))
    (tmp_path / "answers.json").write_text(json.dumps(["yes", "no", "red"]))
    arguments = command(data, tmp_path / "run", "--epochs", "1", "--freeze", "nothing")  # to end before the first step
    arguments[arguments.index("--config") + 1] = str(tmp_path / "config.json")
    arguments[arguments.index("--answers") + 1] = str(tmp_path / "answers.json")
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert "Texts are cut to 9 tokens, the config's max_position_embeddings." in told.out
    assert "The model has 3 answers, those of the answer table, instead of the config's 7." in told.out
    assert not (tmp_path / "run").exists()


def test_unknown_answers_are_told_once_for_each_set(data, tmp_path, caplog):
    (tmp_path / "answers.json").write_text(json.dumps(["yes", "no", "red"]))
    arguments = command(data, tmp_path / "run", "--freeze", "nothing")
    arguments[arguments.index("--answers") + 1] = str(tmp_path / "answers.json")
    assert main(arguments) == 2
    assert caplog.text.count("not in the answer table of 3") == 2


def test_an_answer_table_of_another_set_is_refused(data, tmp_path, capsys):
    (tmp_path / "answers.json").write_text(json.dumps(["maybe", "never"]))
    arguments = command(data, tmp_path / "run")
    arguments[arguments.index("--answers") + 1] = str(tmp_path / "answers.json")
    assert main(arguments) == 2
    assert "The answer table has none of the answers in the annotations" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--limit", "-1"], "limit must be at least 1, got -1"),
        (["--limit", "0"], "limit must be at least 1, got 0"),
        (["--max-length", "0"], "max_length must be at least 3"),
    ],
)
@pytest.mark.parametrize("subcommand", ["evaluate", "predict"])
def test_evaluating_options_out_of_range_are_refused(data, run, tmp_path, capsys, subcommand, options, complaint):
    output = ["--output", tmp_path / "out.json"] if subcommand == "predict" else []
    arguments = ["--model", run / "best", "--data", data / "valid.json", "--features", data / "features.h5"]
    assert main([subcommand, "vqa", *map(str, [*arguments, *output]), *options]) == 2
    assert complaint in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("subcommand", ["evaluate", "predict"])
def test_features_that_are_not_finite_are_no_answers(data, run, tmp_path, capsys, subcommand):
    features = shutil.copy(data / "features.h5", tmp_path / "features.h5")
    image = json.loads((data / "valid.json").read_text())[-1]["img_id"]
    with h5py.File(features, "r+") as file:
        first, last = file["pos_boxes"][[name.decode() for name in file["image_ids"][:]].index(image)]
        file["image_features"][first:last] = float("nan")
    output = ["--output", tmp_path / "out.json"] if subcommand == "predict" else []
    arguments = ["--model", run / "best", "--data", data / "valid.json", "--features", features]
    assert main([subcommand, "vqa", *map(str, [*arguments, *output])]) == 2
    told = capsys.readouterr()
    assert "not finite" in told.err and "lxmert-tf features check" in told.err
    assert not (tmp_path / "out.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("content", ["[]", "{", '{"task": "vqa", "max_length": "x"}'])
def test_a_damaged_note_beside_a_model_is_named(data, run, tmp_path, capsys, content):
    model = shutil.copytree(run / "best", tmp_path / "model")
    (model / "training.json").write_text(content)
    arguments = ["--model", model, "--data", data / "valid.json", "--features", data / "features.h5"]
    assert main(["evaluate", "vqa", *map(str, arguments)]) == 2
    assert f"{model / 'training.json'} is damaged" in capsys.readouterr().err


@pytest.mark.slow
def test_a_model_without_the_head_of_the_task_is_not_measured(data, run, tmp_path, capsys):
    model = shutil.copytree(run / "best", tmp_path / "model")
    (model / "training.json").unlink()
    arguments = ["--model", model, "--data", data / "valid.json", "--features", data / "features.h5"]
    assert main(["evaluate", "nlvr2", *map(str, arguments)]) == 2
    assert "is not a trained model for nlvr2: it lacks" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_directory_points_to_its_models(data, run, capsys):
    arguments = ["--model", run, "--data", data / "test.json", "--features", data / "features.h5"]
    assert main(["evaluate", "vqa", *map(str, arguments)]) == 2
    assert f"{run} is a run directory; give one of its models, such as {run / 'best'}." in capsys.readouterr().err


@pytest.mark.slow
def test_evaluate_without_labels_points_to_predict(data, run, capsys):
    arguments = ["--model", run / "best", "--data", data / "test.json", "--features", data / "features.h5"]
    assert main(["evaluate", "vqa", *map(str, arguments)]) == 2
    assert "no labels to evaluate on; use predict" in capsys.readouterr().err


@pytest.mark.slow
def test_features_that_cannot_be_read_stop_training_with_the_cause(data, tmp_path, capsys):
    features = shutil.copy(data / "features.h5", tmp_path / "features.h5")
    last = json.loads((data / "valid.json").read_text())[-1]["img_id"]
    with h5py.File(features, "r+") as file:
        place = [name.decode() for name in file["image_ids"][:]].index(last)
        first, _ = file["pos_boxes"][place]
        file["image_bb"][first] += 1000
    arguments = command(data, tmp_path / "run", "--eval-batch-size", "4")  # it is not in the first batch
    arguments[arguments.index("--features") + 1] = str(features)
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert f"Training stopped in step 5 of 8: ValueError: {features}, image '{last}': a box is outside" in told
    assert (tmp_path / "run" / "run.json").exists()
