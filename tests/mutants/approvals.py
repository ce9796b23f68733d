"""Planted bugs of approvals."""

from tests.mutants.planting import Mutant

A, D = "actors/approvals.py", "actors/deciding.py"
R, P, F, C, B, K = (
    "tests/unit/test_approvals_rule.py",
    "tests/unit/test_approvals_people.py",
    "tests/unit/test_approvals_forms.py",
    "tests/unit/test_approvals_cli.py",
    "tests/unit/test_approvals.py",
    "tests/unit/test_approvals_course.py",
)

APPROVALS = (
    Mutant(
        "approval-two-people", A, "if any(one.person == person for one in approvals_in(signed)):", "if False:", (R,)
    ),
    Mutant("approval-two-keys", A, "if earlier.key == statement.key:", "if False:", (R,)),
    Mutant(
        "approval-same-answer",
        A,
        'if pack_input(given, "it") != pack_input(full_answer(statement.answer, terms), "it"):',
        "if False:",
        (R,),
    ),
    Mutant(
        "approval-rejected-by-one",
        A,
        '        return Verdict("rejected", seats)\n',
        '        return Verdict("open", seats)\n',
        (R,),
    ),
    Mutant("approval-only-who-may", A, "    if not seats:\n", "    if False:\n", (R,)),
    Mutant("approval-all-named", A, "    if filled <= len(before):\n", "    if False:\n", (R,)),
    Mutant("approval-late", A, "if terms.expires and at.left >= terms.expires:", "if False:", (R,)),
    Mutant("approval-expires", D, "        if terms.expires:\n", "        if False:\n", (K,)),
    Mutant("approval-escalated", D, "self._cell.waits.note(Escalated(number, terms.expires))", "pass", (K,)),
    Mutant(
        "approval-terms-signed",
        D,
        "(wait.opened, wait.name, wait.shown, covered(wait)) != about",
        "(wait.opened, wait.name, wait.shown) != about[:3]",
        (P,),
    ),
    Mutant(
        "approval-roles-now",
        D,
        "self._roles = await self._cell.host.doorman.roles()",
        "self._roles = self._roles or await self._cell.host.doorman.roles()",
        (P,),
    ),
    Mutant("approval-typed", D, "            self._fits(statement, self.forms[number])\n", "            pass\n", (K,)),
    Mutant("approval-awaits-its-type", D, "return number in self.forms or", "return True or", (K,)),
    Mutant("approval-apart", A, "    if terms.apart == person:\n", "    if False:\n", (R,)),
    Mutant(
        "approval-handed-on",
        A,
        "if _holder(root, signed) == person]",
        "if root == person or _holder(root, signed) == person]",
        (R,),
    ),
    Mutant("approval-signed-kept", D, "            cell.waits.note(signed)\n", "", (P,)),
    Mutant("approval-start-recorded", D, "        if first is not None:\n", "        if False:\n", (K,)),
    Mutant(
        "approval-as-shown",
        "agent_party/signing.py",
        "if (seen.opened, seen.name, seen.shown, seen.terms) != (wait.opened, wait.name, wait.shown, wait.terms):",
        "if False:",
        (C,),
    ),
    Mutant("approval-in-time", D, "Moment(now, left)", "Moment(now, now)", (K,)),
    Mutant("approval-inbox-before-time", D, "            await cell.work.hear()\n", "            pass\n", (K,)),
    Mutant(
        "approval-refusal-recorded",
        "actors/messages.py",
        "self.decisions.refused(event, error, revision)",
        "pass",
        (P,),
    ),
    Mutant("approval-unknown-role", D, "if terms.roles and (wrong :=", "if False and (wrong :=", (P,)),
    Mutant("approval-form-changed", D, "            self._cell.waits.replay.error = changed", "            pass", (K,)),
    Mutant(
        "approval-form-checked",
        "actors/forms.py",
        '    "maximum": (lambda value, bound: value <= bound, "at most"),\n',
        "",
        (F,),
    ),
    Mutant(
        "approval-answer-completed",
        "agent_party/signing.py",
        "pack_input(full_answer(packed, terms), ",
        "pack_input(msgspec.msgpack.decode(packed), ",
        (C,),
    ),
    Mutant(
        "approval-stranger",
        "agent_party/proof.py",
        "sealing.hkdf_extract(record.header.salt, log.keys.of_id(event.key_id).secret), wait.index",
        "sealing.hkdf_extract(record.header.salt, log.keys.of_id(event.key_id).secret), 0",
        ("tests/docs/test_approvals.py",),
    ),
    Mutant(
        "approval-not-replayed",
        D,
        "wait.shown, covered(wait)) != about:",
        "wait.shown, covered(wait))[1:] != about[1:]:",
        (B, P),
    ),
    Mutant("approval-key-known", "actors/statements.py", "    if statement.key != key:\n", "    if False:\n", (B,)),
)
