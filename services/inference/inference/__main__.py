"""`python -m inference`: serves predictions."""

import os
import sys
from typing import Final

_VARIABLES: Final = {
    # native thread pools would spin beside the scoring threads, which have the cores already
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "KMP_BLOCKTIME": "0",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # whatever of torch's company may load ONNX Runtime: it would call home
    "ORT_DISABLE_TELEMETRY": "1",
}


def main() -> int:
    """Libraries read these when they are loaded, so nothing of the service is imported before."""
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    from common.service import command_line
    from inference.app import create_service
    from inference.settings import InferenceSettings

    return command_line("inference", InferenceSettings, create_service)


if __name__ == "__main__":
    sys.exit(main())
