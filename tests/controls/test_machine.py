"""How many threads a world is given, and memory that is given back."""

import ctypes

import pytest

from controls import machine


@pytest.mark.parametrize(("cores", "threads"), [(1, 2), (2, 2), (4, 2), (6, 3), (8, 4), (64, 4)])
def test_threads_follow_the_cores(cores, threads, monkeypatch):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert machine.usable_cores() == cores and machine.threads_of_use() == threads


def test_a_system_that_does_not_say_which_cores_may_be_used(monkeypatch):
    monkeypatch.delattr(machine.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(machine.os, "cpu_count", lambda: None)
    assert machine.usable_cores() == 1 and machine.threads_of_use() == 2


def test_memory_is_given_back_where_the_system_can(monkeypatch):
    asked = []
    library = type("Library", (), {"malloc_trim": lambda _, keep: asked.append(keep)})
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library())
    machine.give_back_memory()
    assert asked == [0]


@pytest.mark.parametrize("library", [object(), OSError(), TypeError()])
def test_a_system_that_keeps_its_memory_is_no_fault(library, monkeypatch):
    def opened(name):
        if isinstance(library, Exception):
            raise library
        return library

    monkeypatch.setattr(ctypes, "CDLL", opened)
    machine.give_back_memory()
