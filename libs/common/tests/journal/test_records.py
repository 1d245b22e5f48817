"""Frames are read back whole, and damage costs only the frames it hit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.journal.records import MAX_PAYLOAD_BYTES, frame, scan

texts = st.lists(st.text(max_size=40).map(str.encode), min_size=1, max_size=12)


@given(texts)
def test_frames__are_read_back_in_order(payloads: list[bytes]) -> None:
    data = b"".join(map(frame, payloads))
    found = scan(data, is_last=True)
    assert found.payloads == payloads
    assert (found.end, found.skipped_bytes) == (len(data), 0)


@given(texts, st.data())
def test_torn_last_frame__is_skipped_and_counted(payloads: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(map(frame, payloads))
    torn = frame(b"the last one")
    left = data.draw(st.integers(1, len(torn) - 1))
    found = scan(whole + torn[:left], is_last=True)
    assert found.payloads == payloads
    assert (found.end, found.skipped_bytes) == (len(whole) + left, left)


@given(texts, st.data())
def test_cut_off_frame_with_more_to_come__is_left_for_a_longer_read(payloads: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(map(frame, payloads))
    left = data.draw(st.integers(1, len(frame(b"next")) - 1))
    found = scan(whole + frame(b"next")[:left], is_last=False)
    assert (found.payloads, found.end, found.skipped_bytes) == (payloads, len(whole), 0)


@given(texts, st.data())
def test_flipped_byte__costs_one_frame(payloads: list[bytes], data: st.DataObject) -> None:
    frames = [frame(payload) for payload in payloads]
    hit = data.draw(st.integers(0, len(frames) - 1))
    damaged = bytearray(frames[hit])
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    found = scan(b"".join([*frames[:hit], bytes(damaged), *frames[hit + 1 :]]), is_last=True)
    assert found.payloads == payloads[:hit] + payloads[hit + 1 :]
    assert found.skipped_bytes == len(damaged)


@given(st.binary(max_size=400), texts)
def test_any_bytes_before_frames__never_hide_them(noise: bytes, payloads: list[bytes]) -> None:
    found = scan(noise + b"".join(map(frame, payloads)), is_last=True)
    assert found.payloads == payloads


def test_zeros_at_the_end__are_no_frames() -> None:
    found = scan(frame(b"a") + bytes(4096), is_last=True)
    assert (found.payloads, found.skipped_bytes) == ([b"a"], 4096)


def test_too_long_payload__is_refused() -> None:
    assert scan(frame(bytes(MAX_PAYLOAD_BYTES)), is_last=True).payloads == [bytes(MAX_PAYLOAD_BYTES)]
    with pytest.raises(ValueError, match="at most"):
        frame(bytes(MAX_PAYLOAD_BYTES + 1))
