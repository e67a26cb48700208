"""What a repository's setup may do: the operator's rules and the repository's wishes, merged (pure)."""

from collections.abc import Collection, Mapping

import msgspec

from services.sandbox_runner.egress import Policy, Target
from services.sandbox_runner.repository_settings import DEFAULT_HOSTS, FILE, RepositorySettings
from services.sandbox_runner.sandbox import MIB

PROXY_PORT = 3128
_PROXY = f"http://127.0.0.1:{PROXY_PORT}"
_JAVA = " ".join(
    f"-D{scheme}.proxyHost=127.0.0.1 -D{scheme}.proxyPort={PROXY_PORT}" for scheme in ("http", "https")
)
BUNDLE = "/home/agent/.millrace-ca.pem"
JAVA_STORE = "/home/agent/.millrace-cacerts"
_TRUST = (
    *("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"),
    *("NODE_EXTRA_CA_CERTS", "CARGO_HTTP_CAINFO"),
)
_SCRIPTS_OFF = {
    "NPM_CONFIG_IGNORE_SCRIPTS": "true",  # npm, pnpm
    "YARN_ENABLE_SCRIPTS": "false",
    "PIP_ONLY_BINARY": ":all:",  # an sdist's build is the same as an install script
}


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator lets setups do.

    ``hosts`` may always be reached, and with ``image_hosts`` those that the image's own package managers
    are set up for. ``extra`` may be reached by repositories that ask for them; None stands for any host.
    ``mirrors`` are the operator's own indexes, at any address and port. ``ca`` is the text of further
    certificates that are trusted. ``environment`` is set for every setup. ``scripts``: whether a repository
    may turn install scripts on. ``memory`` in bytes holds everything a setup leaves behind.
    """

    hosts: frozenset[Target] = frozenset()
    image_hosts: bool = True
    extra: frozenset[Target] | None = frozenset()
    mirrors: frozenset[Target] = frozenset()
    ca: str = ""
    environment: dict[str, str] = {}
    scripts: bool = True
    memory: int = 4096 * MIB
    seconds: float = 900.0


def policy_for(
    rules: Rules, image_hosts: Collection[str], settings: RepositorySettings
) -> tuple[Policy, tuple[str, ...]]:
    """What this repository's setup may reach, and sentences about wishes that are not granted."""
    usual = rules.hosts | (frozenset(map(Target, image_hosts)) if rules.image_hosts else frozenset())
    if settings.hosts is None:
        return Policy(hosts=usual, mirrors=rules.mirrors), ()
    hosts: set[Target] = set()
    mirrors: set[Target] = set()
    notes = []
    for name in settings.hosts:
        if name == DEFAULT_HOSTS:
            hosts |= usual
            mirrors |= rules.mirrors
        elif found := {each for each in rules.mirrors if each.host == name}:
            mirrors |= found
        elif Target(name) in usual or rules.extra is None or Target(name) in rules.extra:
            hosts.add(Target(name))
        else:
            notes.append(f"{FILE}: setup.hosts names {name}, which the operator does not allow.")
    return Policy(hosts=frozenset(hosts), mirrors=frozenset(mirrors)), tuple(notes)


def setup_environment(rules: Rules, settings: RepositorySettings) -> dict[str, str]:
    """The variables of a setup's commands: where packages go, the way out, and no install scripts."""
    env = {
        **_places(),
        **{
            name: _PROXY
            for scheme in ("http", "https")
            for name in (f"{scheme}_proxy", f"{scheme.upper()}_PROXY")
        },
        "GOFLAGS": "-modcacherw -buildvcs=false",
        "MAVEN_OPTS": f"-Dmaven.repo.local=/deps/m2 {_JAVA}",
        "GRADLE_OPTS": _JAVA,
        "GRADLE_USER_HOME": "/deps/gradle",
        "PIP_NO_CACHE_DIR": "1",
    }
    if rules.ca:
        java = f" -Djavax.net.ssl.trustStore={JAVA_STORE} -Djavax.net.ssl.trustStorePassword=changeit"
        env |= dict.fromkeys(_TRUST, BUNDLE)
        env |= {name: env[name] + java for name in ("MAVEN_OPTS", "GRADLE_OPTS")}
    if not (settings.install_scripts and rules.scripts):
        env |= _SCRIPTS_OFF
    return env | settings.environment | rules.environment


def later_environment(top: Collection[str], settings: RepositorySettings) -> dict[str, str]:
    """The variables of later sandboxes, for what lies at the top of ``/deps``."""
    env: dict[str, str] = {}
    if "venv" in top:
        env["VIRTUAL_ENV"] = "/deps/venv"
    if "go" in top:
        env |= {name: _places()[name] for name in ("GOMODCACHE",)}
        env |= {"GOPROXY": "off", "GOFLAGS": "-buildvcs=false"}
    if "cargo" in top:
        env |= {"CARGO_HOME": "/deps/cargo", "CARGO_NET_OFFLINE": "true"}
    return env | settings.environment


def path(top: Collection[str]) -> tuple[str, ...]:
    """What comes before the usual directories of PATH."""
    places = {"venv": "/deps/venv/bin", "bin": "/deps/bin", "cargo": "/deps/cargo/bin", "go": "/deps/go/bin"}
    found = [place for name, place in places.items() if name in top]
    return (*found, *(["/workspace/node_modules/.bin"] if "linked" in top else []))


def _places() -> Mapping[str, str]:
    return {
        "GOMODCACHE": "/deps/go/mod",
        "GOPATH": "/deps/go",
        "CARGO_HOME": "/deps/cargo",
        "VIRTUAL_ENV": "/deps/venv",
    }


EVERYTHING = ("venv", "bin", "cargo", "go", "linked")
"""Names at the top of ``/deps`` that have a meaning: all of them count while a setup runs."""
