import pytest

from analyst.ratelimit_headers import ratelimit_headers


@pytest.mark.parametrize(
    ("left", "wait_s", "told"), [(2, 0.0, "r=2"), (0, 0.0, "r=0"), (0, 30.2, "r=0;t=31"), (6, 30.2, "r=6")]
)
def test_reset__is_told_only_while_nothing_is_left(left: int, wait_s: float, told: str) -> None:
    assert ratelimit_headers("gemini", limit=10, window_s=60.5, left=left, wait_s=wait_s) == {
        "RateLimit-Policy": '"gemini";q=10;w=61',
        "RateLimit": f'"gemini";{told}',
    }
