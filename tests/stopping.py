"""A program that is stopped in the middle: after so many files, at the next one."""

import contextlib

from outlay import store


class Stop(BaseException):
    """Like a keyboard interrupt."""


@contextlib.contextmanager
def after(writes, monkeypatch, *modules):
    """Within the block these modules (and the store) write so many files whole; the next one raises Stop."""
    real, left = store.write_atomic, [writes]

    def limited(path, data):
        if left[0] == 0:
            raise Stop
        left[0] -= 1
        real(path, data)

    with monkeypatch.context() as patched:
        for module in (store, *modules):
            patched.setattr(module, "write_atomic", limited)
        yield
