"""`python -m inference`: serve predictions."""

import os
import sys
from typing import Final

_VARIABLES: Final = {
    # native thread pools would compete with the engines, which use every core
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "KMP_BLOCKTIME": "0",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # a library that comes with torch may load ONNX Runtime, which would send telemetry
    "ORT_DISABLE_TELEMETRY": "1",
}


def main() -> int:
    """Set the variables before the libraries that read them are imported."""
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    from common.service import command_line
    from inference.app import create_service
    from inference.settings import InferenceSettings

    return command_line("inference", InferenceSettings, create_service)


if __name__ == "__main__":
    sys.exit(main())
