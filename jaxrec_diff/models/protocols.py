"""How the authors of each system evaluate it."""

from typing import Literal, NamedTuple

Protocol = Literal["honest", "official"]


class Rules(NamedTuple):
    """How a protocol ranks."""

    mask_seen: bool  # items of the history are no candidates
    trained_only: bool  # items that never occur in training are no candidates
    multiple_of: int = 1  # rows beyond the last full batch of this size are dropped
    all_users: bool = False  # users without an answer count, with zeros
    decimals: int | None = None  # to which the validation metric is rounded before it is compared


HONEST = Rules(mask_seen=True, trained_only=True)


# The released script ranks all rows, histories included, and drops the last N mod 100 rows. DimeRec
# has no released code; those who re-ran it used the same script.
DREAMREC_SCRIPT = Rules(mask_seen=False, trained_only=False, multiple_of=100)


# The script of DDRM, which ranks all items but those of the splits before.
MATRIX_SCRIPT = Rules(mask_seen=True, trained_only=False)


# The released scripts of DiffuRec and DiQDiff rank everything, histories included. Of DiffRec2 none
# was released, and it is compared with these.
HISTORIES_COMPETE = Rules(mask_seen=False, trained_only=False)


# The released scripts rank all items but those of the splits before, and divide by all users.
DIFFREC_SCRIPT = Rules(mask_seen=True, trained_only=False, all_users=True, decimals=4)
