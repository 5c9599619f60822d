"""`lxmert-tf demo` runs to its end and leaves what it says."""

import pytest

from lxmert_tf.cli import main


@pytest.mark.slow
def test_the_demo_runs(tmp_path, capsys):
    assert main(["demo", "--output", str(tmp_path / "demo"), "--images", "40", "--epochs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "trained in" in printed
    assert "overall" in printed
    differences = [float(line.split()[-1]) for line in printed.splitlines() if "largest difference" in line]
    assert len(differences) >= 2
    assert max(differences) < 1e-4  # float32 through a few layers: about 1e-6
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {"data", "checkpoint", "saved_model", "answer.png"}
