"""Verification of one-event commits by the rule, beside libsodium verifying the same signatures and nothing else."""

from nacl.bindings import crypto_sign_open

from agent_party.eventstore.verify import SIGN_TAG, Record

from .measure import Clock, Figure, Report, in_turns, ratios
from .site import Reader, judged, raws, site, written


async def verification(quick: bool) -> Report:
    """Parse and judge every record of a tape: hashes, chain, grants, signatures."""
    part, event = "verification", written()
    streams, commits, rounds = (8, 8, 3) if quick else (200, 10, 41)
    async with site(streams) as place:
        await place.append_to_all(streams, commits, [event])
        log, tape = place.log.identity, [stored.raw for stored in await raws(place.log)]
        founding, records = tape[: -streams * commits], tape[-streams * commits :]
        keys = {writer.grant: writer.key.public for writer in place.writers}
        signed = [_signed(record, keys) for record in judged(log, tape) if record.header.grant in keys]

        async def rule() -> float:
            reader = Reader(log)
            reader.read(founding)  # certificates and grants: control commits, which are not measured
            with Clock() as clock:
                accepted = reader.read(records)
            assert len(accepted) == len(signed) == len(records)
            return len(records) / clock.wall

        async def libsodium() -> float:
            with Clock() as clock:
                for message, key in signed:
                    crypto_sign_open(message, key)
            return len(signed) / clock.wall

        values = await in_turns(rounds, {"raw": libsodium, "rule": rule})
        verified = await place.verify(event)
    return Report(
        [
            Figure(part, "parse and judge / raw libsodium", "x", ratios(values["rule"], values["raw"]), least=0.8),
            Figure(part, "parse and judge", "commits/s", values["rule"]),
            Figure(part, "raw libsodium", "signatures/s", values["raw"]),
        ],
        verified,
    )


def _signed(record: Record, keys: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    return record.signature + SIGN_TAG + record.commit, keys[record.header.grant]
