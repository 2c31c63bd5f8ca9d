"""What of a group of GPUs is still to be measured: on a host before each test, and here before a
host is asked at all. Standard library only: its text is a part of the host's program."""


def next_mode(group, results):
    """In which ways a group is to be measured next, after what came out so far.

    With P2P first, unless some of it did not work so; without where P2P did not work or the card
    wants it told. A group of which some do not work at all is left out.
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
