"""Many clients for a long time: `python tests/serving/soak.py --minutes 10`. Fails on any error or growing memory.

Eight clients of both protocols ask an exported tiny model on the loopback server all that it can be asked, and one
request in twenty is a bad one. Memory is the server's own (anonymous pages), from the end of the first tenth on.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

CLIENTS = 8
GROWTH = 1.05  # of memory, after the first tenth


def memory(pid: int) -> int:
    """Bytes of memory that are a process's own."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon"))


def soak(seconds: float, base: Path, checkpoint: Path, requests: int = 0) -> dict:
    """Asks for so many seconds; returns counts and memory.

    Args:
        seconds: how long.
        requests: of each client, at least, however long they take.
        base: BASE/qa holds the exported model.
        checkpoint: it was exported from this one, which has the vocabulary's size.
    """
    from support.serving import random_inputs, serving

    from lxmert_tf import LxmertConfig
    from lxmert_tf.input_table import IMAGE_INPUTS
    from lxmert_tf.serving.client import InvalidRequestError, connect

    config = LxmertConfig.from_pretrained(checkpoint)
    counts, failures, lock = {"good": 0, "bad": 0}, [], threading.Lock()
    with serving(f"qa={base / 'qa'}", options=("--threads", str(CLIENTS))) as running:
        stop = time.monotonic() + seconds

        def ask(number: int) -> None:
            client, rng = connect(running[("grpc", "rest")[number % 2]], "qa"), np.random.default_rng(number)
            asked = 0
            while time.monotonic() < stop or asked < requests:
                seed, kind, asked = int(rng.integers(1 << 30)), (asked + number) % 20, asked + 1
                inputs = random_inputs(config, *(int(rng.integers(1, n)) for n in (9, 33, 37)), seed)
                visual = {name: value for name, value in inputs.items() if name in IMAGE_INPUTS}
                try:
                    if kind == 0:
                        inputs["input_ids"][0, 0] = config.vocab_size
                        client.predict(inputs)
                        failures.append("a bad request was answered")
                    elif kind < 8:
                        client.predict(inputs)
                    elif kind < 14:
                        client.answer(["what is in the picture?"] * len(inputs["input_ids"]), **visual)
                    else:
                        image = {name: value[:1] for name, value in visual.items()}
                        client.answer_encoded(["what color", "is it?"], client.encode_image(**image))
                except InvalidRequestError as error:
                    if kind:
                        failures.append(str(error))
                except Exception as error:
                    failures.append(f"{type(error).__name__}: {error}")
                with lock:
                    counts["good" if kind else "bad"] += 1

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        samples = []
        while any(thread.is_alive() for thread in threads):
            samples.append(memory(running["pid"]))
            time.sleep(min(1.0, seconds / 60))
        for thread in threads:
            thread.join()
    tenth = max(len(samples) // 10, 1)
    start, end = median(samples[tenth : 2 * tenth]), median(samples[-tenth:])
    return {
        **counts,
        "failures": len(failures),
        "first failures": failures[:3],
        "memory_mb": [round(start / 1e6, 1), round(end / 1e6, 1)],
        "growth": round(end / start, 4),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    args = parser.parse_args()
    from support.serving import write_checkpoint

    from lxmert_tf.serving.export import export

    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint("qa", Path(folder) / "qa")
        export(Path(folder) / "qa", Path(folder) / "models", "qa", text=True, batch_sizes=(1,))
        result = soak(60 * args.minutes, Path(folder) / "models", Path(folder) / "qa")
    print(json.dumps(result, indent=2))
    return 0 if not result["failures"] and result["growth"] <= GROWTH else 1


if __name__ == "__main__":
    sys.exit(main())
