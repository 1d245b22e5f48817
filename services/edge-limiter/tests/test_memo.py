from edge_limiter.memo import MEMO_LENGTH, memo


def test_short_word__is_worked_out_once__and_a_long_one_each_time() -> None:
    asked = []

    @memo(10)
    def length(word: str) -> int:
        asked.append(word)
        return len(word)

    short, long = "a" * MEMO_LENGTH, "a" * (MEMO_LENGTH + 1)
    assert [length(short), length(short), length(long), length(long)] == [64, 64, 65, 65]
    assert asked == [short, long, long]
