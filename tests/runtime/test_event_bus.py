"""The bus tells everybody everything in order, and nobody who listens can change what happens."""

import asyncio
import logging
from typing import Any

import detangle
import pytest

from rh_agents import EventBus, ExecutionEvent, ExecutionState, Tool, tool
from rh_agents.core.errors import UsageError


async def handler(data: Any) -> Any:
    return data


def made(name: str | int) -> ExecutionEvent[Any]:
    return ExecutionEvent(actor=Tool(name=str(name), handler=handler))


@tool
async def work(number: int) -> int:
    await asyncio.sleep(0.1)
    return number


class Recorder:
    """A subscriber that takes `delay` seconds for each event."""

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.names: list[str] = []
        self.begun: list[str] = []

    async def __call__(self, event: ExecutionEvent[Any]) -> None:
        self.begun.append(event.name)
        await asyncio.sleep(self.delay)
        self.names.append(event.name)


def test_plain_and_coroutine_subscribers_are_told_everything_in_order() -> None:
    names: list[str] = []
    recorder = Recorder(delay=1.0)

    async def main() -> None:
        bus = EventBus()
        plain = bus.subscribe(lambda event: names.append(event.name))
        slow = bus.subscribe(recorder)
        for number in range(5):
            await bus.publish(made(number))
        assert (plain.delivered, slow.delivered) == (5, 5)
        assert bus.subscriptions == (plain, slow)

    detangle.run(main)
    assert names == recorder.names == ["0", "1", "2", "3", "4"]


def test_publishing_waits_for_a_subscriber_without_a_buffer_and_not_for_one_with_a_buffer() -> None:
    async def main() -> None:
        bus, clock = EventBus(), asyncio.get_running_loop().time
        with bus.subscribe(Recorder(delay=3.0)):
            await bus.publish(made(0))
            assert clock() == pytest.approx(3.0)
        with bus.subscribe(Recorder(delay=3.0), buffer=1):
            await bus.publish(made(1))
            assert clock() == pytest.approx(3.0)
        await bus.drain()
        assert clock() == pytest.approx(6.0)

    detangle.run(main)


def test_calls_side_by_side_are_told_to_every_subscriber_in_the_order_of_the_history() -> None:
    told: list[ExecutionEvent[Any]] = []
    delays = iter([9.0, 5.0, 1.0])

    async def slow(event: ExecutionEvent[Any]) -> None:
        await asyncio.sleep(next(delays, 0.0))

    async def main() -> None:
        async with ExecutionState() as state:
            state.event_bus.subscribe(slow)
            state.event_bus.subscribe(told.append)
            async with state.parallel() as p:
                p.map(work, range(3))
                await p.gather()
            assert told == list(state.history)

    detangle.run(main)


def test_a_slow_coroutine_subscriber_finishes_one_event_before_it_gets_the_next() -> None:
    finished: list[ExecutionEvent[Any]] = []
    delays = iter([0.0, 9.0, 5.0, 1.0])

    async def slow(event: ExecutionEvent[Any]) -> None:
        await asyncio.sleep(next(delays, 0.0))
        finished.append(event)

    async def main() -> None:
        async with ExecutionState() as state:
            state.event_bus.subscribe(slow)
            async with state.parallel() as p:
                p.map(work, range(3))
                await p.gather()
            assert finished == list(state.history)

    detangle.run(main)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("buffer", [0, 2])
def test_a_subscriber_that_raises_is_counted_logged_once_and_costs_nobody_anything(
    is_async: bool, buffer: int, caplog: pytest.LogCaptureFixture
) -> None:
    error = RuntimeError("no room on the screen")
    names: list[str] = []

    def raise_it(event: ExecutionEvent[Any]) -> None:
        raise error

    async def raise_it_later(event: ExecutionEvent[Any]) -> None:
        await asyncio.sleep(0)
        raise error

    async def main() -> None:
        async with ExecutionState() as state:
            bus = state.event_bus
            broken = bus.subscribe(raise_it_later if is_async else raise_it, buffer=buffer)
            bus.subscribe(lambda event: names.append(event.name))
            assert await work(3) == 3
            await bus.drain()
        assert (broken.errors, broken.delivered, broken.last_error) == (2, 0, error)
        assert "2 errors" in repr(broken)

    with caplog.at_level(logging.ERROR, "rh_agents.bus"):
        detangle.run(main)
    assert names == ["work", "work"]
    (record,) = caplog.records
    assert "raise_it" in record.getMessage()
    assert "the run continues" in record.getMessage()


def test_a_subscriber_that_raises_a_cancellation_of_its_own_cancels_nothing() -> None:
    async def cancel(event: ExecutionEvent[Any]) -> None:
        raise asyncio.CancelledError

    async def main() -> None:
        async with ExecutionState() as state:
            subscription = state.event_bus.subscribe(cancel)
            assert await work(3) == 3
        assert subscription.errors == 2

    detangle.run(main)


def test_a_cancellation_of_the_run_reaches_it_also_while_a_subscriber_is_at_work() -> None:
    async def main() -> None:
        async with ExecutionState() as state:
            state.event_bus.subscribe(Recorder(delay=5.0))
            task = asyncio.ensure_future(work(3).outcome())
            await asyncio.sleep(1.0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    detangle.run(main)


@pytest.mark.parametrize("buffer", [0, 1])
def test_a_subscriber_that_hangs_is_given_up_and_gets_no_more_events(
    buffer: int, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(delay=float("inf"))

    async def main() -> None:
        bus = EventBus(handler_timeout=5.0)
        hanging = bus.subscribe(recorder, buffer=buffer)
        await bus.publish(made("first"))
        await bus.drain()
        assert asyncio.get_running_loop().time() == pytest.approx(5.0)
        await bus.publish(made("second"))
        assert bus.subscriptions == ()
        assert (hanging.delivered, hanging.errors) == (0, 1)

    detangle.run(main)
    assert recorder.begun == ["first"]
    assert "took longer than 5 s; it gets no more events" in caplog.text


def test_a_subscriber_that_was_given_up_holds_nobody_up_who_waited_for_its_buffer() -> None:
    recorder = Recorder(delay=float("inf"))

    async def main() -> None:
        bus = EventBus(handler_timeout=5.0)
        hanging = bus.subscribe(recorder, buffer=1, on_full="wait")
        async with asyncio.TaskGroup() as tasks:
            for number in range(6):
                tasks.create_task(bus.publish(made(number)))
        await bus.drain()
        assert asyncio.get_running_loop().time() == pytest.approx(5.0)
        assert hanging.dropped == 5

    detangle.run(main)
    assert recorder.begun == ["0"]


def test_a_timeout_error_of_the_subscriber_itself_does_not_give_it_up() -> None:
    async def raise_timeout(event: ExecutionEvent[Any]) -> None:
        raise TimeoutError("the screen did not answer")

    async def main() -> None:
        bus = EventBus()
        subscription = bus.subscribe(raise_timeout)
        await bus.publish(made(1))
        await bus.publish(made(2))
        assert (subscription.errors, bus.subscriptions) == (2, (subscription,))

    detangle.run(main)


@pytest.mark.lazy_tasks("the first event is delivered at once, so one more fits in")
def test_a_full_buffer_drops_the_oldest_and_counts_them() -> None:
    recorder = Recorder(delay=1.0)

    async def main() -> None:
        bus = EventBus()
        subscription = bus.subscribe(recorder, buffer=2)
        for number in range(10):
            await bus.publish(made(number))
        await bus.drain()
        assert (subscription.delivered, subscription.dropped) == (2, 8)

    detangle.run(main)
    assert recorder.names == ["8", "9"]


def test_a_full_buffer_can_make_the_publisher_wait_so_that_nothing_is_dropped() -> None:
    recorder = Recorder(delay=1.0)

    async def main() -> None:
        bus = EventBus()
        subscription = bus.subscribe(recorder, buffer=2, on_full="wait")
        for number in range(10):
            await bus.publish(made(number))
        assert asyncio.get_running_loop().time() == pytest.approx(7.0)
        await bus.drain()
        assert (subscription.delivered, subscription.dropped) == (10, 0)

    detangle.run(main)
    assert recorder.names == [str(number) for number in range(10)]


def test_nobody_overtakes_those_who_wait_for_a_place_in_the_buffer() -> None:
    recorder = Recorder(delay=1.0)

    async def main() -> None:
        bus = EventBus()
        bus.subscribe(recorder, buffer=1, on_full="wait")

        async def publish(number: int, delay: float) -> None:
            await asyncio.sleep(delay)
            await bus.publish(made(number))

        async with asyncio.TaskGroup() as tasks:
            for number in range(6):
                tasks.create_task(publish(number, number * 0.5))
        await bus.drain()

    for seed in range(20):
        recorder.names.clear()
        detangle.run(main, seed=seed)
        assert recorder.names == ["0", "1", "2", "3", "4", "5"]


def test_an_idle_buffered_subscription_has_no_task() -> None:
    async def main() -> None:
        bus = EventBus()
        recorder = Recorder()
        bus.subscribe(recorder, buffer=5)
        for number in range(3):
            await bus.publish(made(number))
            await bus.drain()
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}
        assert recorder.names == ["0", "1", "2"]

    detangle.run(main)


def test_a_subscription_ends_when_it_is_closed_and_what_waits_is_still_delivered() -> None:
    plain, buffered = Recorder(), Recorder(delay=1.0)

    async def main() -> None:
        bus = EventBus()
        first = bus.subscribe(plain)
        with bus.subscribe(buffered, buffer=5):
            await bus.publish(made(1))
            await bus.publish(made(2))
        first.close()
        first.close()
        await bus.publish(made(3))
        await bus.drain()
        assert bus.subscriptions == ()

    detangle.run(main)
    assert plain.names == buffered.names == ["1", "2"]


def test_who_subscribes_or_leaves_during_an_event_does_so_for_the_next_one() -> None:
    names: list[str] = []
    late: list[str] = []

    async def main() -> None:
        bus = EventBus()

        def subscribe_another(event: ExecutionEvent[Any]) -> None:
            names.append(event.name)
            own.close()
            bus.subscribe(lambda event: late.append(event.name))

        own = bus.subscribe(subscribe_another)
        for number in range(3):
            await bus.publish(made(number))

    detangle.run(main)
    assert names == ["0"]
    assert late == ["1", "2"]


def test_a_stream_gives_events_until_the_bus_is_closed() -> None:
    async def main() -> None:
        state = ExecutionState()
        stream = state.event_bus.stream()

        async def read() -> list[str]:
            return [event.execution_status.value async for event in stream]

        reader = asyncio.create_task(read())
        async with state:
            await work(1)
            await work(2)
        assert await reader == ["started", "completed"] * 2
        assert stream.dropped == 0

    detangle.run(main)


def test_a_stream_that_nobody_reads_keeps_the_newest_and_counts_the_others() -> None:
    async def main() -> None:
        bus = EventBus()
        stream = bus.stream(buffer=3)
        for number in range(10):
            await bus.publish(made(number))
        await bus.aclose()
        assert [event.name async for event in stream] == ["7", "8", "9"]
        assert stream.dropped == 7

    detangle.run(main)


def test_a_stream_that_is_closed_ends_for_whoever_reads_it() -> None:
    async def main() -> None:
        bus = EventBus()
        stream = bus.stream()

        async def read() -> list[str]:
            return [event.name async for event in stream]

        reader = asyncio.create_task(read())
        await bus.publish(made(1))
        await asyncio.sleep(1)
        stream.close()
        await bus.publish(made(2))
        async with asyncio.timeout(5):
            assert await reader == ["1"]

    detangle.run(main)


def test_the_end_of_a_run_delivers_what_waits_before_the_block_is_left() -> None:
    recorder = Recorder(delay=1.0)

    async def main() -> None:
        async with ExecutionState() as state:
            state.event_bus.subscribe(recorder, buffer=10)
            await work(1)
        assert len(recorder.names) == 2
        assert state.event_bus.is_closed
        with pytest.raises(UsageError, match="the event bus is closed"):
            state.event_bus.subscribe(recorder)

    detangle.run(main)


@pytest.mark.parametrize(
    ("options", "message"), [({"buffer": -1}, "0 or more events"), ({"on_full": "explode"}, "explode")]
)
def test_a_subscription_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EventBus().subscribe(print, **options)


def test_a_subscriber_must_be_callable() -> None:
    with pytest.raises(TypeError, match="a subscriber is a function of one event, not 'print'"):
        EventBus().subscribe("print")  # type: ignore[arg-type]


def test_a_stream_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 event"):
        EventBus().stream(buffer=0)
