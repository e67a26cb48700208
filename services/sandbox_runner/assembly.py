"""The operator's settings as what grounds are made with; every value is checked before anything starts."""

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from services.kit.errors import Misconfigured
from services.kit.settings import Settings
from services.sandbox_runner.change import DEFAULT_LIMITS
from services.sandbox_runner.deps import Room, Store
from services.sandbox_runner.egress import PORT, Target, parse_target
from services.sandbox_runner.grounds import Grounds
from services.sandbox_runner.images import Images
from services.sandbox_runner.mirror import Mirror
from services.sandbox_runner.podman_host import PodmanHost
from services.sandbox_runner.sandbox import MIB
from services.sandbox_runner.setup import Setups
from services.sandbox_runner.setup_rules import Rules

IMAGE_HOSTS = "image"
ANY = "*"


def build_grounds(
    settings: Settings, host: PodmanHost, mirror: Mirror, image: Callable[[], Awaitable[str]]
) -> Grounds:
    """Images, setups and what they left, as the operator wants them.

    Args:
        image: the name of the sandbox image, once there is a Podman that has it.

    Raises:
        Misconfigured: a setting names something that is no host, or a file that cannot be read.
    """
    home = settings.home.absolute()
    rules = rules_of(settings)
    memory = rules.memory
    store = Store(home / "deps", Room(size=memory // 2, total=settings.setup_store * MIB))
    store.sweep()
    setups = Setups(host, mirror, store, rules, at_once=max(1, settings.sandbox_limit // 4))
    images = Images(host, home / "images", image, settings.sandbox_images, learn=setups.ask_index)
    most = settings.change_size * MIB
    change = msgspec.structs.replace(
        DEFAULT_LIMITS, files=settings.change_files, size=most, file_size=min(most, DEFAULT_LIMITS.file_size)
    )
    return Grounds(mirror, images, setups, change)


def rules_of(settings: Settings) -> Rules:
    """What setups may do, from the settings."""
    named, wished = settings.setup_hosts, settings.setup_extra_hosts
    hosts = [name for name in named if name != IMAGE_HOSTS]
    extra = None if ANY in wished else _targets("SETUP_EXTRA_HOSTS", wished)
    try:
        ca = settings.setup_ca.read_text() if settings.setup_ca is not None else ""
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"MILLRACE_SETUP_CA: the file cannot be read ({type(error).__name__})") from error
    return Rules(
        hosts=_targets("SETUP_HOSTS", hosts),
        image_hosts=IMAGE_HOSTS in named,
        extra=extra,
        mirrors=_targets("SETUP_MIRRORS", settings.setup_mirrors, ports=True),
        ca=ca,
        environment=dict(pair.split("=", 1) for pair in settings.setup_environment),
        scripts=settings.setup_scripts == "repository",
        memory=settings.setup_memory * MIB,
        seconds=settings.setup_minutes * 60,
    )


def _targets(name: str, values: Sequence[str], *, ports: bool = False) -> frozenset[Target]:
    try:
        found = frozenset(map(parse_target, values))
    except ValueError as error:
        raise Misconfigured(f"MILLRACE_{name}: {error}") from error
    if not ports and any(target.port != PORT for target in found):
        raise Misconfigured(f"MILLRACE_{name}: only port 443; name other ports in MILLRACE_SETUP_MIRRORS")
    return found
