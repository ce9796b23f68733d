"""Neo4j, the community's edition: Bolt on loopback, no HTTP, nothing told to anybody."""

from pathlib import Path

from . import artifacts
from .cache import Say
from .ports import LOOPBACK
from .server import HEAP, Command, NotYetError, Place, driver, environment, lines, secret
from .state import Node, State, private

USER = "neo4j"
_OPENS = ("java.nio", "java.io", "sun.nio.ch", "java.util", "java.lang", "java.util.concurrent")
"""Packages of Java into which Neo4j reaches."""


class Neo4j:
    """One server with one database."""

    name, patience, parting = "neo4j", 180.0, 30.0

    def fetch(self, say: Say) -> Path:
        """The jars; Java must be there."""
        artifacts.java()
        return artifacts.jars(artifacts.NEO4J, say)

    def ports(self, state: State) -> tuple[str, ...]:
        """Bolt's."""
        return ("bolt",)

    def command(self, place: Place, node: Node, program: Path) -> Command:
        """Write ``neo4j.conf``; set the password before the first start, so that the known one never works."""
        home, java = place.home(node), artifacts.java()
        (home / "conf").mkdir(exist_ok=True)
        place.data(node).mkdir(exist_ok=True)
        private(home / "conf" / "neo4j.conf", lines(settings(node)))
        if not (place.data(node) / "dbms").exists():
            told = ("dbms", "set-initial-password", secret(place.state, "neo4j"))
            private(home / "password", "\n".join(told) + "\n")
            call = [java, "-Xmx128m", "-cp", f"{program}/*", "org.neo4j.cli.AdminTool", f"@{home / 'password'}"]
            artifacts.call(call, {"NEO4J_HOME": str(home), "NEO4J_CONF": str(home / "conf")})
            (home / "password").unlink()
        opens = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENS]
        heap = ["-Xms256m", "-Xmx768m"]  # these settings are read by Neo4j's own launcher, which is not used here
        words = [java, HEAP, *heap, f"-XX:ErrorFile={home}/jvm.log", "-Dfile.encoding=UTF-8", *opens]
        words += ["-cp", f"{program}/*", "org.neo4j.server.CommunityEntryPoint"]
        return Command([*words, f"--home-dir={home}", f"--config-dir={home / 'conf'}"], environment())

    def answer(self, place: Place, node: Node) -> str:
        """The version of its one component, told to who has the password."""
        neo4j = driver("neo4j", "neo4j")
        login, limit = (USER, secret(place.state, "neo4j")), 5.0
        try:
            with neo4j.GraphDatabase.driver(address(node), auth=login, connection_timeout=limit) as opened:
                found = opened.execute_query("CALL dbms.components() YIELD versions RETURN versions[0] AS version")
        except (neo4j.exceptions.Neo4jError, neo4j.exceptions.DriverError, OSError) as error:
            raise NotYetError(str(error) or type(error).__name__) from error
        return str(found.records[0]["version"])


def settings(node: Node) -> dict[str, object]:
    """What the server is set to."""
    return {
        "server.default_listen_address": LOOPBACK,
        "server.bolt.listen_address": f"{LOOPBACK}:{node.ports['bolt']}",
        "server.http.enabled": "false",
        "server.https.enabled": "false",
        "dbms.usage_report.enabled": "false",
        "client.allow_telemetry": "false",
        "server.memory.heap.initial_size": "256m",
        "server.memory.heap.max_size": "768m",
        "server.memory.pagecache.size": "128m",
        "db.tx_log.rotation.retention_policy": "2 files",
    }


def address(node: Node) -> str:
    """Its URL, without the password."""
    return f"bolt://{LOOPBACK}:{node.ports['bolt']}"
