"""Where a local platform lives: its data folder, its addresses, and what each service is told by its environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.local.ports import reserve_ports
from services.shared.errors import ConfigurationError

# In the order in which they are shown; they start at once and stop in the order of STOP_ORDER.
SERVICES = ("search", "ingest", "audit", "review", "embed")
# A second embed, with the model that the gallery moves to (docs/operations/model-migration.md). It runs where the
# environment has settings of it: LIKENESS_CANDIDATE__MODEL__… are LIKENESS_EMBED__MODEL__… of that process alone.
CANDIDATE = "candidate"
_CANDIDATE_PREFIX = "LIKENESS_CANDIDATE__"
# Whoever writes to the audit log stops before it, so that every intent still gets its outcome.
STOP_ORDER = (("search", "ingest", "review"), ("embed", CANDIDATE), ("audit",))
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class ServicePorts:
    http: int
    grpc: int


DEFAULT_PORTS: Mapping[str, ServicePorts] = {
    "search": ServicePorts(8080, 50063),
    "ingest": ServicePorts(8081, 50061),
    "audit": ServicePorts(8082, 50064),
    "review": ServicePorts(8083, 50065),
    "embed": ServicePorts(8084, 50062),
}
_CANDIDATE_PORTS = ServicePorts(8085, 50066)


@dataclass(frozen=True, slots=True)
class CertificateFolder:
    """Where the authority and the certificates of one platform lie."""

    root: Path

    @property
    def authority(self) -> Path:
        return self.root / "ca.pem"

    @property
    def authority_key(self) -> Path:
        return self.root / "ca-key.pem"

    def certificate(self, service: str) -> Path:
        return self.root / f"{service}.pem"

    def key(self, service: str) -> Path:
        return self.root / f"{service}-key.pem"


@dataclass(frozen=True, slots=True)
class DataFolder:
    """Every file of a local platform. Nothing of it lies outside the root."""

    root: Path

    @property
    def tokens(self) -> Path:
        return self.root / "tokens"

    @property
    def certificates(self) -> CertificateFolder:
        return CertificateFolder(self.root / "tls")

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def watchlists(self) -> Path:
        return self.root / "watchlists.toml"

    @property
    def lock(self) -> Path:
        return self.root / "platform.lock"

    @property
    def state(self) -> Path:
        """Who supervises and where the services listen, as JSON, while the platform runs."""
        return self.root / "platform.json"

    def log_of(self, service: str) -> Path:
        return self.logs / f"{service}.log"

    def database_url(self, service: str) -> str:
        return f"sqlite:///{self.root / service / service}.sqlite"


def free_ports(services: Sequence[str] = SERVICES) -> dict[str, ServicePorts]:
    """Two ports a service, free and kept from chance (see reserve_ports); all differ."""
    numbers = reserve_ports(HOST, 2 * len(services))
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return {service: ServicePorts(*pair) for service, pair in zip(services, pairs, strict=True)}


def has_candidate(inherited: Mapping[str, str]) -> bool:
    """Whether the environment has settings of a second embed."""
    return any(name.startswith(_CANDIDATE_PREFIX) for name in inherited)


def module_of(service: str) -> str:
    """The package below `services` that a process runs."""
    return "embed" if service == CANDIDATE else service


def parse_ports(text: str, *, with_candidate: bool = False) -> dict[str, ServicePorts]:
    """`auto` for free ports, or changes to the defaults: `search=9080,audit.grpc=51064`. Raises ConfigurationError."""
    if text == "auto":
        return free_ports((*SERVICES, CANDIDATE) if with_candidate else SERVICES)
    ports = dict(DEFAULT_PORTS) | ({CANDIDATE: _CANDIDATE_PORTS} if with_candidate else {})
    for change in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = change.partition("=")
        service, _, side = name.partition(".")
        if service not in ports or side not in {"", "http", "grpc"} or not number.isdecimal():
            raise ConfigurationError(
                f"`{change}` is no port setting.",
                advice="Write `auto`, or a list such as `search=9080,audit.grpc=51064`; "
                f"the services are {', '.join(ports)}.",
            )
        old = ports[service]
        new = int(number)
        ports[service] = ServicePorts(old.http, new) if side == "grpc" else ServicePorts(new, old.grpc)
    return ports


def addresses(ports: Mapping[str, ServicePorts]) -> Iterator[tuple[str, str, int]]:
    """Every (service, side, port) that has to be free."""
    for service, pair in ports.items():
        yield service, "http", pair.http
        yield service, "grpc", pair.grpc


def environment(
    service: str,
    data: DataFolder,
    ports: Mapping[str, ServicePorts],
    inherited: Mapping[str, str],
    *,
    allow_synthetic: bool = False,
    mutual_tls: bool = True,
) -> dict[str, str]:
    """The environment of one service process on the embedded adapters.

    Where it listens and whom it calls is the platform's to say; which adapters it uses is not: a variable that is set
    already (a PostgreSQL URL, a Kafka address, ...) stands.
    """
    module = module_of(service)
    prefix = f"LIKENESS_{module.upper()}__"
    defaults = _adapters(module, data)
    if service == "ingest":
        defaults["ALLOW_SYNTHETIC"] = str(allow_synthetic).lower()
    if mutual_tls:
        defaults |= _certificates(module, data.certificates)
    return {
        **{prefix + name: value for name, value in defaults.items()},
        **inherited,
        **(_candidate_settings(inherited) if service == CANDIDATE else {}),
        **{prefix + name: value for name, value in _addresses(service, ports).items()},
    }


def _addresses(service: str, ports: Mapping[str, ServicePorts]) -> dict[str, str]:
    """Where a service listens and whom it calls."""
    listens = {
        "HTTP_HOST": HOST,
        "HTTP_PORT": str(ports[service].http),
        "GRPC_HOST": HOST,
        "GRPC_PORT": str(ports[service].grpc),
    }
    peers = {f"PEERS__{peer.upper()}": f"{HOST}:{pair.grpc}" for peer, pair in ports.items() if peer != CANDIDATE}
    found = listens | peers
    if CANDIDATE in ports and service in {"search", "ingest"}:
        found["CANDIDATE_EMBED"] = f"{HOST}:{ports[CANDIDATE].grpc}"
    if service == "review":
        found |= _urls_of_review(ports)
    return found


def _urls_of_review(ports: Mapping[str, ServicePorts]) -> dict[str, str]:
    """What review reads over REST: search's films, and for custodians and auditors what two other services have."""
    names = {
        "search": "FILMS__SEARCH_URL",
        "ingest": "CONSOLE__OVERSIGHT__INGEST_URL",
        "audit": "CONSOLE__OVERSIGHT__AUDIT_URL",
    }
    return {name: f"http://{HOST}:{ports[peer].http}" for peer, name in names.items() if peer in ports}


def _candidate_settings(inherited: Mapping[str, str]) -> dict[str, str]:
    """In embed's own words."""
    return {
        "LIKENESS_EMBED__" + name.removeprefix(_CANDIDATE_PREFIX): value
        for name, value in inherited.items()
        if name.startswith(_CANDIDATE_PREFIX)
    }


def _certificates(service: str, folder: CertificateFolder) -> dict[str, str]:
    return {
        "TLS__CA_PATH": str(folder.authority),
        "TLS__CERT_PATH": str(folder.certificate(service)),
        "TLS__KEY_PATH": str(folder.key(service)),
    }


def _adapters(service: str, data: DataFolder) -> dict[str, str]:
    common = {
        "TOKENS__JWKS_PATH": str(data.tokens / "jwks.json"),
        "TOKENS__REVOCATIONS_PATH": str(data.tokens / "revocations.json"),
        "WATCHLISTS_PATH": str(data.watchlists),
    }
    by_service = {
        "ingest": {
            "DATABASE__URL": data.database_url("ingest"),
            "IMAGES__PATH": str(data.root / "images"),
            # Apart from the images and the ledger: what is backed up with them opens nothing.
            "IMAGES__KEYS_URL": f"sqlite:///{data.root / 'image-keys' / 'keys.sqlite'}",
            "IMAGES__MASTER_KEY_PATH": str(data.root / "image-keys" / "master.key"),
            "LIFE__CERTIFICATE_KEY_PATH": str(data.root / "ingest" / "certificate-key.pem"),
            "EVENTS__PATH": str(data.root / "events.sqlite"),
        },
        "search": {
            "DATABASE__URL": data.database_url("search"),
            "PROBES__PATH": str(data.root / "probes"),
            # Keys of its own: an erasure among the enrolled images does not concern those of probes, nor the other way.
            "PROBES__KEYS_URL": f"sqlite:///{data.root / 'probe-keys' / 'keys.sqlite'}",
            "PROBES__MASTER_KEY_PATH": str(data.root / "probe-keys" / "master.key"),
            "FILMS__SPOOL_PATH": str(data.root / "spool"),
            # One person tries out what a unit does in a month; a machine of two cores searches about as fast.
            "RATE_LIMITS__PERSON_PER_MINUTE": "1800",
            "SEARCH_RATE_LIMITS__PERSON_PER_MINUTE": "1800",
            "SEARCH_RATE_LIMITS__FORCE_PER_MINUTE": "6000",
            "NEAR_DUPLICATES__PROBES_PER_PERSON": "100000",
        },
        "review": {
            "DATABASE__URL": data.database_url("review"),
            "IMAGES__PATH": str(data.root / "review" / "pictures"),
            "IMAGES__KEYS_URL": f"sqlite:///{data.root / 'request-keys' / 'keys.sqlite'}",
            "IMAGES__MASTER_KEY_PATH": str(data.root / "request-keys" / "master.key"),
            # For trying it out; a force signs in at its identity provider.
            "CONSOLE__TOKEN_SIGN_IN": "true",
            "FILMS__SPOOL_PATH": str(data.root / "spool"),
        },
        "embed": {"FILM__SPOOL_PATH": str(data.root / "spool")},
        "audit": {
            "DATABASE__URL": data.database_url("audit"),
            "CHECKPOINTS__SIGNING_KEY_PATH": str(data.root / "audit" / "signing-key.pem"),
            "CHECKPOINTS__WITNESS_PATH": str(data.root / "audit-witness"),
        },
    }
    return {**common, **by_service.get(service, {})}
