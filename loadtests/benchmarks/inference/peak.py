"""Measures the peak rate of matrix multiplication in float32 and int8, one process per core. Prints JSON.

Run it with a Python that has torch. GFLOP/s, and for int8 the same count of operations.
"""

import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import torch

_ROWS: Final = 1024
_INNER: Final = 1024
_COLUMNS: Final = 1024
_ROUNDS: Final = 5
_ROUND_S: Final = 0.3


def measure(_number: int) -> tuple[float, float]:
    torch.set_num_threads(1)
    a, b = torch.randn(_ROWS, _INNER), torch.randn(_INNER, _COLUMNS)
    fp32 = _rate(lambda: a @ b)
    a8, b8 = (torch.randint(-127, 127, shape, dtype=torch.int8) for shape in ((_ROWS, _INNER), (_INNER, _COLUMNS)))
    return fp32, _rate(lambda: torch._int_mm(a8, b8))


def _rate(multiply: Callable[[], Any]) -> float:
    multiply()
    return statistics.median(_round(multiply) for _ in range(_ROUNDS))


def _round(multiply: Callable[[], Any]) -> float:
    calls, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < _ROUND_S:
        multiply()
        calls += 1
    return 2e-9 * _ROWS * _INNER * _COLUMNS * calls / seconds


if __name__ == "__main__":
    cores = multiprocessing.cpu_count()
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        found = pool.map(measure, range(cores), chunksize=1)
    print(json.dumps({"fp32": sum(fp32 for fp32, _ in found), "int8": sum(int8 for _, int8 in found)}))
