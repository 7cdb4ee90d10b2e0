"""What a test compiles, counted."""

import contextlib

import jax


@contextlib.contextmanager
def compilations():
    """A list to which every compilation inside the block is added."""
    seen = []

    def listen(event, seconds, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(kwargs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
