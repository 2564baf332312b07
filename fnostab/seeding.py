"""Independent random streams, derived from one seed by name.

A trial's seed varies the initialisation and the data order. Each has a stream of its own, and each
layer a stream named after it, so that a layer that two arms share starts with equal weights in both,
whatever else was built before it.
"""

import hashlib


def stream_seed(seed: int, *names: str) -> int:
    """Derive the seed of the stream called ``names`` from a trial's ``seed``: an integer in [0, 2**63).

    The same arguments give the same number on every machine and Python version (SHA-256, not
    ``hash``); different names give unrelated streams.
    """
    text = "\x1f".join([str(int(seed)), *names])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
