"""A peer, built as in its tutorials: FastAPI around `transformers.pipeline`; MODEL and PORT from the environment.

A plain `def` runs in the framework's thread pool; the pipeline itself may be called from any thread.
"""

import os

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

torch.set_num_threads(int(os.environ["THREADS"]))
app = FastAPI()
classifier = pipeline("text-classification", model=os.environ["MODEL"], device="cpu")


class Request(BaseModel):
    text: str


@app.post("/predict")
def predict(request: Request) -> dict[str, object]:
    found: dict[str, object] = classifier(request.text)[0]
    return found


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="error", access_log=False)
