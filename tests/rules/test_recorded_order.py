"""In which order a stream repeats what it gave before."""

from rh_agents.core._replay.order import RecordedOrder

A, B, C, D = b"a", b"b", b"c", b"d"


class Stream:
    """Gives what the order says, as the stream of a group does: the members are numbered as they are enrolled."""

    def __init__(self, *recorded: bytes) -> None:
        self.order = RecordedOrder(recorded)
        self.keys: list[bytes] = []

    def enrol(self, *keys: bytes) -> None:
        for key in keys:
            self.order.enrolled(key, len(self.keys))
            self.keys.append(key)

    def give(self, *finished: bytes) -> list[bytes]:
        """Everything that is to be given now, if these members have finished."""
        indexes = {self.keys.index(key) for key in finished}
        given = []
        for _ in finished:
            index = self.order.take(indexes)
            if index is None:
                break
            given.append(self.keys[index])
            self.order.passed(self.keys[index])
        return given

    @property
    def waits(self) -> bool:
        return self.order.waits_for_enrolment


def test_the_recorded_order_is_repeated_whatever_the_order_of_enrolment() -> None:
    stream = Stream(C, A, B)
    stream.enrol(A, B, C)
    assert stream.give(A, B, C) == [C, A, B]
    assert stream.order.is_over


def test_one_that_has_not_finished_holds_back_those_behind_it() -> None:
    stream = Stream(A, B)
    stream.enrol(A, B)
    assert stream.give(B) == []
    assert not stream.waits
    assert stream.give(A, B) == [A, B]


def test_one_that_has_not_been_enrolled_is_waited_for() -> None:
    stream = Stream(A, B)
    stream.enrol(B)
    waits = [stream.waits]
    assert stream.give(B) == []
    stream.enrol(A)
    waits.append(stream.waits)
    assert waits == [True, False]
    assert stream.give(A, B) == [A, B]


def test_those_that_cannot_come_any_more_are_left_out() -> None:
    stream = Stream(A, B, C, D)
    stream.enrol(C)
    stream.order.skip_missing()
    assert stream.give(C) == [C]
    stream.order.skip_missing()
    assert stream.order.is_over


def test_one_that_comes_later_than_it_could_by_itself_has_its_place_again() -> None:
    stream = Stream(A, B, C, D)
    stream.enrol(C)
    stream.order.skip_missing()
    given = stream.give(C)
    stream.enrol(D, B, A)
    assert given + stream.give(A, B, C, D) == [C, A, B, D]
    assert stream.order.is_over


def test_one_that_comes_later_and_was_passed_meanwhile_has_no_place_any_more() -> None:
    stream = Stream(A, B)
    stream.order.skip_missing()
    stream.order.passed(A)
    stream.enrol(A, B)
    assert stream.give(A, B) == [B]
    assert stream.order.is_over


def test_one_that_was_cancelled_is_left_out() -> None:
    stream = Stream(A, B)
    stream.enrol(A, B)
    stream.order.skip_unfinished()
    assert stream.give(B) == [B]
    assert stream.order.is_over


def test_one_that_is_made_again_under_another_key_is_waited_for_no_longer() -> None:
    stream = Stream(A, B, C)
    stream.enrol(C)
    stream.order.passed(B)  # before its turn has come
    stream.order.passed(A)
    assert stream.give(C) == [C]


def test_what_was_not_recorded_has_no_place_in_it() -> None:
    stream = Stream(A)
    stream.enrol(D, A)
    stream.order.passed(D)
    assert stream.give(D, A) == [A]


def test_with_nothing_recorded_it_is_over_from_the_start() -> None:
    stream = Stream()
    assert stream.order.is_over
    assert not stream.waits
    assert stream.order.take({0}) is None
