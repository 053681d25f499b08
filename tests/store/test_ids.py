from __future__ import annotations

import threading
import time

from store.ids import ALPHABET, LENGTH, new_id


def _number(row_id: str) -> int:
    number = 0
    for digit in row_id.partition("_")[2]:
        number = number << 5 | ALPHABET.index(digit)
    return number


def test_an_id_is_a_prefix_and_a_uuid_of_version_7() -> None:
    before = time.time_ns() // 1_000_000
    row_id = new_id("job")
    after = time.time_ns() // 1_000_000
    number = _number(row_id)
    assert row_id.startswith("job_")
    assert len(row_id) == len("job_") + LENGTH
    assert number < 2**128
    assert before <= number >> 80 <= after
    assert number >> 76 & 0xF == 7
    assert number >> 62 & 0b11 == 0b10


def test_ids_of_one_process_rise_as_text_whatever_thread_makes_them() -> None:
    made: list[str] = []
    lock = threading.Lock()

    def make() -> None:
        for _ in range(500):
            with lock:
                made.append(new_id("evt"))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == sorted(made)
    assert len(set(made)) == 2000


def test_random_bits_differ() -> None:
    tails = {_number(new_id("job")) & (1 << 62) - 1 for _ in range(100)}
    assert len(tails) == 100
