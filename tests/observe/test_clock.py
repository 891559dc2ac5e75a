"""The clock gives every second to exactly one stage."""

import pytest

from albert_jax.observe.clock import Clock, duration


class FakeTime:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_stages_add_up_to_wall_time() -> None:
    time = FakeTime()
    clock = Clock(now=time)
    time.now += 1
    with clock.stage("step"):
        time.now += 10
        with clock.stage("input_wait"):
            time.now += 3
        time.now += 5
    time.now += 2
    seconds = clock.take()
    assert (seconds["step"], seconds["input_wait"], seconds["other"]) == (15, 3, 3)
    assert sum(seconds.values()) == 21


def test_take_starts_anew_even_inside_a_stage() -> None:
    time = FakeTime()
    clock = Clock(now=time)
    with clock.stage("checkpoint"):
        time.now += 4
        assert clock.take()["checkpoint"] == 4
        time.now += 6
    clock.add("lost", 30)
    seconds = clock.take()
    assert (seconds["checkpoint"], seconds["lost"]) == (6, 30)


def test_a_stage_ends_when_its_block_raises() -> None:
    time = FakeTime()
    clock = Clock(now=time)
    with pytest.raises(ValueError), clock.stage("evaluation"):
        time.now += 1
        raise ValueError
    time.now += 1
    assert clock.take()["other"] == 1


def test_duration_of_nothing_and_less() -> None:
    assert [duration(s) for s in (-3, 0, 59.6, 3599.7)] == ["0s", "0s", "1m00s", "1h00m"]
