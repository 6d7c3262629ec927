"""Several processes with the same model, for all cores."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from devices.runtimes.model_process import ModelProcess
from devices.runtimes.runtime import Array, ModelInfo


class ModelPool:
    """`workers` processes that hold the same file, one inference thread each. A context manager.

    Raises what ModelProcess raises.
    """

    def __init__(self, path: str | os.PathLike[str], workers: int, timeout_s: float = 60.0) -> None:
        self._workers: list[ModelProcess] = []
        try:
            for _ in range(workers):  # all start before any is waited for
                self._workers.append(ModelProcess(path, 1, timeout_s))
        except BaseException:  # no error, and no Ctrl-C, leaves those behind that have started
            self.close()
            raise
        self._idle: SimpleQueue[ModelProcess] = SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(workers, "edgenet-pool")

    @property
    def info(self) -> ModelInfo:
        """What the runtime says of the file."""
        return self._workers[0].info

    def map(self, batches: Iterable[Array]) -> Iterator[NDArray[np.float32]]:
        """Run batches [n, ...] on all workers; scores [n, classes] in the order of the batches.

        Batches are drawn while the workers are busy, so decoding in the caller overlaps inference; at most two batches
        a worker wait in memory.
        """
        ahead = 2 * len(self._workers)
        pending: deque[Future[NDArray[np.float32]]] = deque()
        try:
            for batch in batches:
                pending.append(self._threads.submit(self._run, batch))
                while pending and (len(pending) >= ahead or pending[0].done()):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

    def close(self) -> None:
        """End all processes; an inference that is under way ends with them."""
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> ModelPool:
        try:
            for worker in self._workers:
                _ = worker.info
        except BaseException:  # nor here
            self._shut()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._shut()

    def _shut(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.close()
        self._threads.shutdown(wait=True)

    def _run(self, batch: Array) -> NDArray[np.float32]:
        worker = self._idle.get()
        try:
            return worker.run(batch)
        finally:
            self._idle.put(worker)
