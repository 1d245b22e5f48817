"""A peer, built as in its tutorials: LitServe around our ONNX session; settings: BUNDLE, WORKERS, THREADS, PORT.

One session of one thread in each worker process.
"""

import os
from pathlib import Path
from typing import Any

import litserve
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

BUNDLE = Path(os.environ["BUNDLE"])


class Classifier(litserve.LitAPI):
    def setup(self, device: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["THREADS"])
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(str(BUNDLE / "model.onnx"), options)
        self.tokenizer = Tokenizer.from_file(str(BUNDLE / "tokenizer.json"))
        self.tokenizer.enable_truncation(512)

    def decode_request(self, request: dict[str, str]) -> str:
        return request["text"]

    def predict(self, text: str) -> Any:
        ids = np.array([self.tokenizer.encode(text).ids], np.int64)
        [logits] = self.session.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        return logits[0]

    def encode_response(self, logits: Any) -> dict[str, object]:
        shares = np.exp(logits - logits.max())
        best = int(shares.argmax())
        return {"label": ("NEGATIVE", "POSITIVE")[best], "score": float(shares[best] / shares.sum())}


if __name__ == "__main__":
    server = litserve.LitServer(
        Classifier(), accelerator="cpu", workers_per_device=int(os.environ["WORKERS"]), timeout=60
    )
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), log_level="error", generate_client_file=False)
