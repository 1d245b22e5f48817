"""(d): FastAPI with slowapi on Redis in front of the upstream. `slowapi_app.py PORT UPSTREAM REDIS_URL`

Runs in an environment of its own: fastapi, slowapi, redis, uvicorn[standard], httpx.
"""

import sys

import httpx
import uvicorn
from fastapi import FastAPI, Request, Response
from slowapi import Limiter

port, upstream, redis_url = int(sys.argv[1]), sys.argv[2], sys.argv[3]
limiter = Limiter(
    key_func=lambda request: request.headers["x-forwarded-for"], storage_uri=redis_url, strategy="moving-window"
)
app = FastAPI()
app.state.limiter = limiter
client = httpx.AsyncClient(base_url=upstream, limits=httpx.Limits(max_connections=256, max_keepalive_connections=256))


@app.post("/predict")
@limiter.limit("1000/minute")
async def predict(request: Request) -> Response:
    answer = await client.post(
        "/predict", content=await request.body(), headers={"content-type": request.headers["content-type"]}
    )
    return Response(answer.content, answer.status_code, media_type="application/json")


uvicorn.run(app, host="127.0.0.1", port=port, log_level="critical", access_log=False)
