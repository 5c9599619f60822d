"""What a contender does in its own process: prepare its cases, then run the one that each line on stdin names.

Whatever is printed is a line of JSON. A case that fails says so, and the others go on.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Step = Callable[[], Any]
ENOUGH = 0.1  # seconds that a measurement lasts at least


class Size(NamedTuple):
    """What is run: sizes of the model that differ from the published one's, and batch sizes."""

    config: dict[str, int]
    forward: tuple[int, ...]
    training: tuple[int, ...]
    pretraining: tuple[int, ...]
    questions: int
    question_batch: int
    image_batch: int
    lengths: tuple[int, ...]  # what questions are padded to, the shortest that fits


SIZES = {
    "base": Size({}, (1, 8, 32, 128), (32, 128), (128,), 1280, 128, 128, (8, 12, 20)),
    "small": Size(
        {
            "hidden_size": 64,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "l_layers": 1,
            "x_layers": 1,
            "r_layers": 1,
        },
        (1, 2),
        (2,),
        (2,),
        20,
        8,
        2,
        (8, 20),
    ),
}
ANSWERS = 3129  # of VQA


def arguments() -> tuple[Size, str]:
    """The size and the variant that the command line names; cases come after them."""
    return SIZES[sys.argv[1]], sys.argv[2]


def say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def serve(
    cases: Mapping[str, Callable[[], Step]], finish: Callable[[Any], Any], peak_memory: Callable[[], float | None]
) -> None:
    """Prepares the cases that the command line names, and times whichever is asked for.

    Args:
        cases: name -> what makes the step of this case.
        finish: waits until what a step returned is there.
        peak_memory: the most memory of the device that this process has held, in bytes.
    """
    steps, calls = {}, {}
    for name in sys.argv[3:]:
        start = time.perf_counter()
        try:
            steps[name] = cases[name.rpartition(" ")[0]](int(name.rpartition(" ")[2]))
            for _ in range(3):
                once = time.perf_counter()
                finish(steps[name]())
                once = time.perf_counter() - once
            calls[name] = max(1, int(ENOUGH / once))
            say(case=name, prepared=time.perf_counter() - start)
        except Exception as error:
            steps.pop(name, None)
            say(case=name, error=f"{type(error).__name__}: {error}"[:300])
    say(ready=True)
    for line in sys.stdin:
        name = line.strip()
        start = time.perf_counter()
        for _ in range(calls[name]):
            result = steps[name]()
        finish(result)
        say(case=name, seconds=(time.perf_counter() - start) / calls[name])
    say(peak_bytes=peak_memory())
