"""Sets nginx up in front of all replicas of all hosts."""

from collections.abc import Collection, Mapping

from pyinfra.api.deploy import deploy

from roles.balancer import nginx
from roles.balancer.certificate import alternative_names
from roles.balancer.operations import Answers, asked, installed, self_signed, serving, site
from roles.balancer.settings import BalancerSettings
from roles.balancer.upstream import servers
from roles.plan import Plan

PACKAGES = ["nginx", "openssl", "python3", "procps"]


@deploy("Balancer")
def balancer(
    settings: BalancerSettings,
    plan: Plan,
    addresses: Mapping[str, str],
    drained: Collection[str],
    own_address: str,
    model_name: str,
) -> None:
    """Everything that a balancer needs; `own_address` is the one that its certificate names."""
    # What cannot be served is refused here: an exception within an operation ends the whole run.
    candidates = servers(plan, addresses, drained, {})
    answers = Answers()
    installed(name="Install nginx and what it needs", packages=PACKAGES)
    asked(
        name="Ask every replica for a token",
        settings=settings,
        candidates=candidates,
        model_name=model_name,
        answers=answers,
    )
    if settings.certificate_file is None:
        self_signed(
            name="Make a self-signed certificate",
            path=nginx.SELF_SIGNED,
            names=alternative_names(settings.server_name, own_address),
            answers=answers,
        )
    site(
        name="Write the site with the replicas that answer",
        settings=settings,
        plan=plan,
        addresses=addresses,
        drained=drained,
        answers=answers,
    )
    serving(name="Run nginx with these files", answers=answers)
