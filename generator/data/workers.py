"""Jobs on several processes, none of which may die unnoticed.

Does not know what the jobs are.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.pool import IMapIterator
from multiprocessing.sharedctypes import Synchronized
from typing import Any, TypeVar

from controls.errors import UserError

PATIENCE = 2.0  # seconds without a result after which the processes are looked at
Job, Result = TypeVar("Job"), TypeVar("Result")


def on_workers(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int,
    begin: Callable[..., None],
    given: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """Results of jobs on so many processes, each begun with what is given, in whatever order they end.

    UserError when a process dies: a pool puts another in its place, and waits for the lost job for ever.
    """
    context = multiprocessing.get_context("spawn")
    begun = context.Value("i", 0)
    with context.Pool(workers, _count_and_begin, (begun, begin, given)) as pool:
        results = pool.imap_unordered(work, jobs)
        for _ in jobs:
            yield _next(results, begun, workers)
        pool.close()
        pool.join()


def _next(results: IMapIterator[Result], begun: Synchronized[int], workers: int) -> Result:
    while True:
        try:
            return results.next(timeout=PATIENCE)
        except multiprocessing.TimeoutError:
            if begun.value > workers:
                raise UserError(
                    "One of the processes died, out of memory perhaps; what was done is kept, give the same command "
                    "again to go on."
                ) from None


def _count_and_begin(begun: Synchronized[int], begin: Callable[..., None], given: tuple[Any, ...]) -> None:
    with begun.get_lock():
        begun.value += 1
    begin(*given)
