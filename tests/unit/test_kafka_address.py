"""What stands in a Kafka URL, and what does not."""

import pytest

from agent_party.actors.errors import ConfigurationError
from agent_party.cluster.settings import load
from agent_party.eventstore.backends.kafka_address import address


def test_servers_and_topic() -> None:
    where = address("kafka://one:9093,two,[::1]:9094/agent.events")
    assert (where.servers, where.topic, where.tls) == (("one:9093", "two:9092", "[::1]:9094"), "agent.events", False)
    assert where.options() == {"bootstrap_servers": ["one:9093", "two:9092", "[::1]:9094"]}


def test_a_user_under_tls() -> None:
    where = address("kafka+ssl://ada:p%40ss%2Fw@one/agent.events?mechanism=SCRAM-SHA-256&partitions=3&replicas=2")
    assert (where.user, where.password, where.mechanism) == ("ada", "p@ss/w", "SCRAM-SHA-256")
    assert (where.partitions, where.replicas) == (3, 2)
    told = where.options()
    assert told["security_protocol"] == "SASL_SSL"
    assert told["ssl_context"].check_hostname


def test_scram_is_what_a_user_without_mechanism_means() -> None:
    assert address("kafka+ssl://ada:x@one/t").mechanism == "SCRAM-SHA-512"
    assert address("kafka+ssl://one/t").options()["security_protocol"] == "SSL"


def test_what_is_shown_holds_no_secret() -> None:
    where = address("kafka+ssl://ada:secret@one/t?ca=/ca.pem")
    assert where.shown == "kafka+ssl://one:9092/t"
    assert "secret" not in repr(where) + str(where)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("kafka://one:9092", "it must be kafka://host:port"),
        ("kafka:///topic", "it must be"),
        ("kafka://one/", "it must be"),
        ("kafka://one/a/b", "no topic's name"),
        ("kafka://one/ü", "no topic's name"),
        ("kafka://one/..", "no topic's name"),
        (f"kafka://one/{'x' * 250}", "no topic's name"),
        ("kafka://one:0/t", "no server"),
        ("kafka://one:99999/t", "no server"),
        ("kafka://one,,two/t", "no server"),
        ("kafka://one two/t", "no server"),
        ("kafka://ada:x@one/t", r"write kafka\+ssl://"),
        ("kafka://one/t?ca=/ca.pem", r"write kafka\+ssl://"),
        ("kafka+ssl://ada@one/t", "a user goes with a password"),
        ("kafka+ssl://one/t?mechanism=SCRAM-SHA-512", "with a user"),
        ("kafka+ssl://ada:x@one/t?mechanism=GSSAPI", "it is one of"),
        ("kafka://one/t?acks=1", "no option is called acks"),
        ("kafka://one/t?partitions=0", "a number from 1 to 1000"),
        ("kafka://one/t?partitions=many", "a number from 1"),
        ("kafka://one/t?replicas=99", "a number from 1 to 20"),
    ],
)
def test_what_is_wrong_with_it_is_said(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        address(url)
    with pytest.raises(ConfigurationError, match=why):
        load({"journal": url}, {})


def test_an_error_repeats_no_password() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({"journal": "kafka+ssl://ada:secret@one/t?acks=1"}, {})
    assert "secret" not in str(caught.value)


def test_the_settings_show_no_password_and_keep_caches_apart() -> None:
    one = load({"journal": "kafka+ssl://ada:secret@one/t"}, {})
    other, rotated = load({"journal": "kafka://one/u"}, {}), load({"journal": "kafka+ssl://ada:new@one/t"}, {})
    assert one.address == "kafka+ssl://one:9092/t"
    assert one.folder == rotated.folder
    assert one.folder != other.folder
    assert one.folder.parent == other.folder.parent
