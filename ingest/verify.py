"""Whether a request comes from where it says: proven, or refused."""

from __future__ import annotations

from ingest.catalogue import CompiledCheck
from ingest.inbound import Request
from ingest.prepared import PreparedSource
from ingest.schemes.base import Proof
from ingest.steps import Step, Unproven
from ingest.template import Scope
from payload.pointer import every
from schemas.errors import NightbellError, SecretsUnavailable


def verify(request: Request, source: PreparedSource, now_ms: int) -> tuple[Proof, Scope]:
    """The proof, and the scope that holds what it found.  Pure.

    Raises `Unproven` (a `BadSignature` that knows the step), another `Refused` where the body cannot be read as the check must
    read it, `KeyNeeded` where a vendor's key must be fetched, and `SecretsUnavailable` where a secret is blank or the check
    itself failed: nothing is ever taken without proof.
    """
    scope = Scope(request, source.options)
    try:
        check = _applying(scope, source)
        proof = _prove(check, scope, source, now_ms)
        for rule in check.rules if not check.each else ():
            rule.demand(scope)
    except NightbellError:
        raise
    except Exception as exc:
        raise SecretsUnavailable(f"the check itself failed: {type(exc).__name__}") from exc
    return proof, scope


def _applying(scope: Scope, source: PreparedSource) -> CompiledCheck:
    for check in source.provider.checks:
        if check.applies(scope):
            return check
    raise Unproven(Step.NO_CHECK, "the request carries none of the signatures that this provider uses")


def _prove(check: CompiledCheck, scope: Scope, source: PreparedSource, now_ms: int) -> Proof:
    if not check.each:
        proof = check.scheme.prove(scope, source.credentials, now_ms)
        scope.signature, scope.claims, scope.key = proof.signature, proof.claims, proof.key
        return proof
    last: Proof | None = None
    for _, item in every(scope.request.document(), check.each):
        inner = scope.over(item)
        proof = check.scheme.prove(inner, source.credentials, now_ms)
        inner.signature, inner.claims, inner.key = proof.signature, proof.claims, proof.key
        for rule in check.rules:
            rule.demand(inner)
        last = proof
    if last is None:
        raise Unproven(Step.ITEMS_MISSING, f"nothing lies at {check.check.each}, where each item is signed")
    return last
