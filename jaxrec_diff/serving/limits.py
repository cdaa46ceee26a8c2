"""How much a server takes at once."""

from typing import NamedTuple


class Limits(NamedTuple):
    """Bounds of a request, of a batch and of all that is under way."""

    body: int = 2**20  # bytes of a request
    seconds: float = 10.0  # until a request has to be there
    histories: int = 64  # of a request, and rows of a batch
    length: int = 1024  # ids of a history
    letters: int = 512  # of an id, or of what is searched
    k: int = 100
    draws: int = 8
    nearest: int = 10  # items at a step of a walk
    shown: int = 33  # steps of a walk
    places: int = 100  # among which the item that a walk ends in is looked for
    found: int = 100  # items of a search
    wait: float = 0.002  # seconds in which others may join a batch
    waiting: int = 1024  # histories that wait for their batch
    requests: int = 256  # under way
    requests_of_one: int = 64  # the same of one address
