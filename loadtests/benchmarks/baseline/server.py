"""A simple service as written in an afternoon. Reads DATABASE_URL, MODEL and THREADS; served by uvicorn.

FastAPI, SQLAlchemy with a commit for each write, `transformers.pipeline`, a limiter of one row for each request, and a
dictionary behind an `asyncio.Lock` for reports. It is not exact (two requests may count the same rows), loses
unfinished writes when it is killed, and caches within one process only.
"""

import asyncio
import os
import time
from datetime import UTC, datetime, timedelta

import torch
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel
from sqlalchemy import DateTime, Index, String, func, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.concurrency import run_in_threadpool
from transformers import pipeline

LIMIT, WINDOW_S, CACHE_S = 60, 60, 300

torch.set_num_threads(int(os.environ["THREADS"]))
engine = create_async_engine(os.environ["DATABASE_URL"], pool_size=20, max_overflow=20)
session_of = async_sessionmaker(engine, expire_on_commit=False)
classifier = pipeline("text-classification", model=os.environ["MODEL"], device="cpu")
app = FastAPI()
reports: dict[str, tuple[float, dict[str, object]]] = {}
lock = asyncio.Lock()


class Base(DeclarativeBase):
    pass


class Admission(Base):
    __tablename__ = "admission"
    __table_args__ = (Index("admission_address_at", "address", "at"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    address: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class Prediction(Base):
    __tablename__ = "prediction"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), index=True)
    label: Mapped[str] = mapped_column(String(64))
    score: Mapped[float]
    latency_ms: Mapped[float]


class Text(BaseModel):
    text: str


class Window(BaseModel):
    window: str = "1h"


@app.post("/predict")
async def predict(body: Text, request: Request) -> dict[str, object]:
    started, now = time.perf_counter(), datetime.now(UTC)
    address = request.client.host if request.client else ""
    async with session_of() as session:
        since = now - timedelta(seconds=WINDOW_S)
        counted = select(func.count()).where(Admission.address == address, Admission.at > since)
        if (await session.scalar(counted) or 0) >= LIMIT:
            raise HTTPException(429, "Too many requests", {"Retry-After": str(WINDOW_S)})
        session.add(Admission(address=address, at=now))
        await session.commit()
    found = (await run_in_threadpool(classifier, body.text))[0]
    latency_ms = 1000 * (time.perf_counter() - started)
    async with session_of() as session:
        session.add(Prediction(at=now, label=found["label"], score=found["score"], latency_ms=latency_ms))
        await session.commit()
    return {"label": found["label"], "score": found["score"]}


@app.post("/analyze/performance")
async def analyze(body: Window) -> dict[str, object]:
    found = reports.get(body.window)
    if found and found[0] > time.monotonic():
        return found[1]
    async with lock:
        found = reports.get(body.window)
        if found and found[0] > time.monotonic():
            return found[1]
        report = await make_report()
        reports[body.window] = (time.monotonic() + CACHE_S, report)
        return report


async def make_report() -> dict[str, object]:
    since = datetime.now(UTC) - timedelta(hours=1)
    p95 = func.percentile_cont(0.95).within_group(Prediction.latency_ms)
    async with session_of() as session:
        count, slow = (await session.execute(select(func.count(), p95).where(Prediction.at > since))).one()
    return {"summary": f"{count} predictions, p95 {slow or 0:.0f} ms", "predictions": count, "p95_ms": slow}


async def create_tables() -> None:
    made = create_async_engine(os.environ["DATABASE_URL"])
    async with made.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await made.dispose()


if __name__ == "__main__":
    asyncio.run(create_tables())
