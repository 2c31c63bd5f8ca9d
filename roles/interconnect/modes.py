"""Decides which measurement of a group of GPUs comes next.

The host does so before each test, the control machine before it contacts the host. Standard library
only, because this text is part of the host's program.
"""


def next_mode(group, results):
    """Whether a group is measured next with P2P (True) or without (False); None if neither.

    It is measured with P2P first, unless P2P failed for some of its GPUs. It is measured without
    where P2P failed, or where the group asks for both. A group is done when some of its GPUs do not
    work together in either mode.
    """
    own = set(group["gpus"])
    inside = [one for one in results if own.issuperset(one["gpus"])]
    works = {(tuple(one["gpus"]), one["p2p"]): one["outcome"] == "works" for one in inside}
    broken = [
        gpus for gpus, p2p in works if not works[gpus, p2p] and not works.get((gpus, not p2p))
    ]
    if any(set(gpus) != own for gpus in broken):
        return None
    no_p2p = not group["p2p"] or any(p2p and not ok for (_, p2p), ok in works.items())
    done = {one["p2p"] for one in inside if set(one["gpus"]) == own}
    if not no_p2p and True not in done:
        return True
    if (no_p2p or group["also_without_p2p"]) and False not in done:
        return False
    return None
