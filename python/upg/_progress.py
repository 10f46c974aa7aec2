"""Progress of long work: tqdm where it is installed, a function of the caller's, or nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

#: Called with (stage, done, total), several times a second at most. Returning False stops the work.
Progress = Callable[[str, int, int], object]


class _Bar:
    """A tqdm bar for each stage in turn, drawn from its second second on."""

    def __init__(self, tqdm: Any) -> None:
        self._tqdm = tqdm
        self._bar: Any = None
        self._stage = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._bar is None or stage != self._stage or total != self._bar.total:
            self.close()
            self._stage = stage
            self._bar = self._tqdm(total=total, desc=stage, unit_scale=True, delay=2, leave=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


@contextlib.contextmanager
def reporter(progress: bool | Progress) -> Iterator[Progress | None]:
    """What the library is to call. True: a bar by tqdm, where it is installed."""
    if callable(progress):
        yield progress
        return
    if progress:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            pass
        else:
            bar = _Bar(tqdm)
            try:
                yield bar
            finally:
                bar.close()
            return
    yield None
