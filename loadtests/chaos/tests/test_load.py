import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.test_utils import TestServer

from chaos.load import Crowd, Load

NOBODY = Crowd(greedy=0, ordinary=0, lists=0, analysts=0, dashboards=0)
Handler = Callable[[web.Request], Awaitable[web.Response]]


def problem(detail: str) -> web.Response:
    return web.json_response({"detail": detail}, status=503, content_type="application/problem+json")


async def server(handler: Handler) -> TestServer:
    app = web.Application()
    app.router.add_post("/{path:.*}", handler)
    started = TestServer(app)
    await started.start_server()
    return started


async def test_fill__goes_on_until_the_journal_is_full_and_no_other_503() -> None:
    answers = [problem("More texts are waiting."), web.json_response({}), problem("can't be put on record now")]

    async def handler(request: web.Request) -> web.Response:
        return answers.pop(0)

    async with await server(handler) as far:
        load = Load(str(far.make_url("/")), 1, NOBODY)
        running = asyncio.create_task(load.run())
        await asyncio.sleep(0)
        assert await load.fill() == 3
        load.stop()
        await running


async def test_paced_load__waits_for_no_answer() -> None:
    answer, crowd_came, arrived = asyncio.Event(), asyncio.Event(), 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal arrived
        arrived += 1
        if arrived == 50:
            crowd_came.set()
        await answer.wait()
        return web.json_response({})

    async with await server(handler) as far:
        load = Load(str(far.make_url("/")), 1, Crowd(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, paced=1000.0))
        running = asyncio.create_task(load.run())
        async with asyncio.timeout(30):
            await crowd_came.wait()
        load.stop()
        answer.set()
        await running
    assert len(load.answers) == arrived >= 50
