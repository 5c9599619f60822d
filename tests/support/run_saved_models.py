"""Runs SavedModels through the C API and prints how long they take, for benchmarks: `python run_saved_models.py PLAN`.

PLAN is JSON: {"rounds": N, "cases": {NAME: [[FOLDER, SIGNATURE, INPUTS.npz], ...]}}. The steps of a case run one after
the other, each with its inputs and, where it takes them, the outputs of the step before. All cases run in turn, N
times. Prints {"load": {FOLDER: seconds}, "first": {NAME: seconds}, "steady": {NAME: [seconds, ...]}}.
"""

import json
import sys
import time

import numpy as np
from support import c_api


def run_case(models, steps) -> float:
    start, outputs = time.perf_counter(), {}
    for folder, signature, inputs in steps:
        takes = set(models[folder].signatures[signature].inputs)
        outputs = models[folder].run({**{n: v for n, v in outputs.items() if n in takes}, **inputs}, signature)
    return time.perf_counter() - start


def main(plan: dict) -> dict:
    c_api.load_text_ops()
    models, load = {}, {}
    for folder in dict.fromkeys(step[0] for steps in plan["cases"].values() for step in steps):
        start = time.perf_counter()
        models[folder] = c_api.SavedModel(folder)
        load[folder] = time.perf_counter() - start
    cases = {
        name: [(folder, signature, dict(np.load(inputs))) for folder, signature, inputs in steps]
        for name, steps in plan["cases"].items()
    }
    first = {name: run_case(models, steps) for name, steps in cases.items()}
    steady = {name: [] for name in cases}
    for _ in range(plan["rounds"]):
        for name, steps in cases.items():
            steady[name].append(run_case(models, steps))
    return {"load": load, "first": first, "steady": steady}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
