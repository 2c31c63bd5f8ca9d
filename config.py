"""pyinfra's own settings for every run from this folder."""

from roles.stages.configure import configure

configure()
