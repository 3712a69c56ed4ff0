"""Where packages of the system come from. Pure."""

from edgebuild.model import Environment

TOOLS_DISTRIBUTION = "debian"  # of the stage that makes boot trees


def package_distributions(environment: Environment) -> list[str]:
    """The distributions whose package archives the build steps ask."""
    os_ = environment.os
    system = environment.distributions[os_.distribution]
    installs = os_.bootstrap or os_.packages or system.common_packages or os_.arch in system.step_architectures
    return sorted({TOOLS_DISTRIBUTION, *([os_.distribution] if installs else [])})
