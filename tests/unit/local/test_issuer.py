"""The local issuer: its tokens verify as any other issuer's do, and its key stays private."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli import assemble
from services.local.deployment import DataFolder
from services.local.issuer import READY_TOKEN_LIFETIME, ROLES, LocalIssuer
from services.local.supervisor import prepare_data
from services.shared.clock import SystemClock
from services.shared.errors import ConfigurationError, Unauthenticated
from services.shared.revocations import open_revocations
from services.shared.settings import TokenSettings
from services.shared.tokens import TokenVerifier


@dataclass
class _Clock:
    moment: datetime

    def now(self) -> datetime:
        return self.moment

    def monotonic_s(self) -> float:
        return 0.0


def _verifier(folder: Path) -> TokenVerifier:
    return TokenVerifier(TokenSettings(jwks_path=folder / "jwks.json"))


def _issue(issuer: LocalIssuer, role: str = "operator", lifetime: timedelta = timedelta(minutes=5)) -> str:
    return issuer.issue(role, ["custody"], force="eastmoor", person_id="p-1", lifetime=lifetime)


def test_a_token_says_who_from_where_with_what(tmp_path: Path) -> None:
    principal = _verifier(tmp_path).verify(_issue(LocalIssuer.open(tmp_path, SystemClock())))
    assert (principal.person_id, principal.force) == ("p-1", "eastmoor")
    assert (principal.roles, principal.watchlists) == (frozenset({"operator"}), frozenset({"custody"}))


def test_ready_tokens_of_every_role_verify_and_are_private(tmp_path: Path) -> None:
    LocalIssuer.open(tmp_path, SystemClock()).write_ready_tokens(("custody", "op_liberal"))
    for role in ROLES:
        path = tmp_path / f"{role}.token"
        principal = _verifier(tmp_path).verify(path.read_text())
        assert principal.roles == {role}
        assert principal.force == "northshire"
        assert principal.watchlists == {"custody", "op_liberal"}
        assert path.stat().st_mode & 0o777 == 0o600


def test_the_key_is_private_and_survives_a_restart(tmp_path: Path) -> None:
    token = _issue(LocalIssuer.open(tmp_path, SystemClock()))
    jwks = (tmp_path / "jwks.json").read_text()
    LocalIssuer.open(tmp_path, SystemClock())
    assert (tmp_path / "issuer-key.pem").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "jwks.json").read_text() == jwks
    assert '"d"' not in jwks
    assert _verifier(tmp_path).verify(token).person_id == "p-1"


def test_a_ready_token_dies_after_its_shift(tmp_path: Path) -> None:
    long_ago = _Clock(datetime.now(UTC) - READY_TOKEN_LIFETIME - timedelta(minutes=1))
    LocalIssuer.open(tmp_path, long_ago).write_ready_tokens(("custody",))
    with pytest.raises(Unauthenticated):
        _verifier(tmp_path).verify((tmp_path / "operator.token").read_text())


def test_another_issuers_token_is_refused(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    LocalIssuer.open(mine, SystemClock())
    with pytest.raises(Unauthenticated):
        _verifier(mine).verify(_issue(LocalIssuer.open(other, SystemClock())))


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(days=32), timedelta(seconds=-1)])
def test_unreasonable_lifetimes_are_refused(tmp_path: Path, lifetime: timedelta) -> None:
    with pytest.raises(ConfigurationError):
        _issue(LocalIssuer.open(tmp_path, SystemClock()), lifetime=lifetime)


def test_an_unknown_role_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        _issue(LocalIssuer.open(tmp_path, SystemClock()), role="root")
    assert "custodian" in caught.value.advice


def test_a_broken_key_is_said_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "issuer-key.pem").write_text("nonsense")
    with pytest.raises(ConfigurationError) as caught:
        LocalIssuer.open(tmp_path, SystemClock())
    assert "issuer-key.pem" in caught.value.detail
    assert (tmp_path / "issuer-key.pem").read_text() == "nonsense"


def test_a_revoked_token_counts_no_longer_and_a_later_one_does(tmp_path: Path) -> None:
    issuer = LocalIssuer.open(tmp_path, SystemClock())
    verifier = TokenVerifier(TokenSettings(jwks_path=tmp_path / "jwks.json", revocations_path=issuer.revocations_path))
    one, two = _issue(issuer), _issue(issuer)
    assert issuer.revoke_token(one) == "p-1"
    with pytest.raises(Unauthenticated):
        verifier.verify(one)
    assert verifier.verify(two).person_id == "p-1"
    issuer.revoke_person("p-1")
    with pytest.raises(Unauthenticated):
        verifier.verify(two)
    later = LocalIssuer.open(tmp_path, _Clock(datetime.now(UTC) + timedelta(seconds=5)))
    assert verifier.verify(_issue(later)).person_id == "p-1"


def test_revocations_of_tokens_that_have_expired_are_forgotten(tmp_path: Path) -> None:
    clock = _Clock(datetime.now(UTC) - timedelta(days=2))
    issuer = LocalIssuer.open(tmp_path, clock)
    issuer.revoke_token(_issue(issuer))
    clock.moment = datetime.now(UTC)
    issuer.revoke_token(_issue(issuer))
    assert len(open_revocations(issuer.revocations_path).current().tokens) == 1
    with pytest.raises(ConfigurationError):
        issuer.revoke_token(_issue(LocalIssuer.open(tmp_path / "other", SystemClock())))


def test_of_many_who_revoke_at_once_no_revocation_is_lost(tmp_path: Path) -> None:
    issuers = [LocalIssuer.open(tmp_path, SystemClock()) for _ in range(24)]
    with ThreadPoolExecutor(len(issuers)) as threads:
        list(threads.map(lambda turn: turn[1].revoke_person(f"p-{turn[0]}"), enumerate(issuers)))
    revoked = open_revocations(issuers[0].revocations_path).current()
    assert set(revoked.persons) == {f"p-{number}" for number in range(24)}


def test_the_command_revokes_a_token_or_a_person(tmp_path: Path) -> None:
    prepare_data(DataFolder(tmp_path), SystemClock())
    ready = (tmp_path / "tokens" / "operator.token").read_text()
    runner = CliRunner()
    command = ["revoke", "--data", str(tmp_path)]
    assert runner.invoke(assemble(["revoke"]), [*command, "--token", "-"], input=ready).exit_code == 0
    assert "local-auditor" in runner.invoke(assemble(["revoke"]), [*command, "--person", "local-auditor"]).output
    folder = tmp_path / "tokens"
    verifier = TokenVerifier(
        TokenSettings(jwks_path=folder / "jwks.json", revocations_path=folder / "revocations.json")
    )
    for role in ("operator", "auditor"):
        with pytest.raises(Unauthenticated):
            verifier.verify((folder / f"{role}.token").read_text())
    assert verifier.verify((folder / "custodian.token").read_text()).person_id == "local-custodian"
    for wrong in ([], ["--token", "x"], ["--token", "x", "--person", "y"]):
        assert isinstance(runner.invoke(assemble(["revoke"]), [*command, *wrong]).exception, ConfigurationError)
