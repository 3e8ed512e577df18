"""Real message brokers for tests: Kafka and ActiveMQ from Maven's repository, RabbitMQ as it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from certificates import PASSWORD, Authority
from local_servers import Server, directory, free_port, free_ports, program, running
from needs import missing

INSTALL: Final = "install a JDK, 17 or later, and Maven (Debian: apt-get install openjdk-17-jdk-headless maven)"
_KAFKA: Final = ("org.apache.kafka:kafka_2.13:3.9.1", "org.slf4j:slf4j-nop:1.7.36")
_ACTIVEMQ: Final = ("org.apache.activemq:activemq-broker:5.18.6", "org.apache.activemq:activemq-stomp:5.18.6")
_JVM: Final = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

_POM: Final = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>tests</groupId><artifactId>broker</artifactId><version>1</version><dependencies>{dependencies}</dependencies></project>
"""
_BROKER: Final = """
import org.apache.activemq.broker.BrokerService;

public class Broker {
    public static void main(String[] arguments) throws Exception {
        BrokerService broker = new BrokerService();
        broker.setPersistent(false);
        broker.setUseJmx(false);
        broker.addConnector(arguments[0]);
        broker.start();
        broker.waitUntilStopped();
    }
}
"""


def _class_path(path: Path, artifacts: tuple[str, ...]) -> str:
    """The jars of these, which Maven keeps in its own repository."""
    maven = shutil.which("mvn")
    if maven is None or shutil.which("java") is None:
        missing(INSTALL)
    dependencies = ""
    for artifact in artifacts:
        group, name, version = artifact.split(":")
        dependencies += f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>"
    (path / "pom.xml").write_text(_POM.format(dependencies=dependencies))
    result = subprocess.run(
        [maven, "-q", "-B", "-ntp", "dependency:build-classpath", "-Dmdep.outputFile=class.path"],
        cwd=path,
        capture_output=True,
        text=True,
    )
    if result.returncode:
        missing(f"let Maven fetch {artifacts[0]}: {result.stdout[-2000:]}")
    return (path / "class.path").read_text()


KAFKA_USER: Final = ("someone", "a-secret")
_SECURED_KAFKA: Final = """
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location={authority.both_path}
ssl.truststore.type=PEM
ssl.truststore.location={authority.authority_path}
listener.name.ssl.ssl.client.auth=required
"""


@contextmanager
def running_kafka() -> Iterator[Server]:
    """One node that is broker and controller."""
    port, controller = free_ports(2)
    with _running_kafka(port, controller, {}, "", ()) as server:
        yield server


@contextmanager
def running_secured_kafka(authority: Authority) -> Iterator[tuple[Server, int, int]]:
    """As `running_kafka`, and the ports where it asks for KAFKA_USER, and for a certificate."""
    port, controller, sasl, tls = free_ports(4)
    user, password = KAFKA_USER
    settings = _SECURED_KAFKA.format(user=user, password=password, authority=authority)
    users = [f"SCRAM-SHA-{bits}=[name={user},password={password}]" for bits in (256, 512)]
    scram = [word for each in users for word in ("--add-scram", each)]
    with _running_kafka(port, controller, {"SASL_SSL": sasl, "SSL": tls}, settings, scram) as server:
        yield server, sasl, tls


@contextmanager
def _running_kafka(
    port: int, controller: int, more: dict[str, int], settings: str, format_options: Sequence[str]
) -> Iterator[Server]:
    """`more`: ports of further listeners by their protocols."""
    addresses = ",".join(f"{name}://127.0.0.1:{each}" for name, each in {"PLAINTEXT": port, **more}.items())
    with directory() as path:
        class_path = _class_path(path, _KAFKA)
        config = path / "server.properties"
        config.write_text(
            f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners={addresses},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={addresses}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL
log.dirs={path}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
{settings}"""
        )
        java = ["java", *_JVM, "-cp", class_path]
        # Any id will do, but one that begins with a dash.
        format_ = [*java, "kafka.tools.StorageTool", "format", "-t", "fastlamfastlamfastlam0", "-c", str(config), *format_options]
        done = subprocess.run(format_, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        with running(Server([*java, "kafka.Kafka", str(config)], port, path)) as server:
            yield server


@contextmanager
def running_activemq(authority: Authority | None = None) -> Iterator[Server]:
    """It listens for STOMP only; with an authority, by TLS."""
    port = free_port()
    with directory() as path:
        class_path = _class_path(path, _ACTIVEMQ)
        source = path / "Broker.java"
        source.write_text(_BROKER)
        java, scheme = ["java", *_JVM], "stomp"
        if authority is not None:
            scheme = "stomp+ssl"
            store = {"": str(authority.store_path), "Password": PASSWORD, "Type": "PKCS12"}
            java += [f"-Djavax.net.ssl.keyStore{name}={value}" for name, value in store.items()]
        java += ["-cp", class_path, str(source), f"{scheme}://127.0.0.1:{port}"]
        with running(Server(java, port, path)) as server:
            yield server


@contextmanager
def running_rabbitmq(authority: Authority | None = None) -> Iterator[Server]:
    """A node of its own, found by nobody else; with an authority it listens by TLS only."""
    port, distribution, mapper = free_ports(3)
    # The wrapper on the path wants to be another user.
    places = sorted(str(path) for path in Path("/usr/lib/rabbitmq").glob("lib/*/sbin"))
    server_program = program("rabbitmq-server", "rabbitmq-server", *places)
    with directory() as path:
        environment = {
            "HOME": str(path),
            "RABBITMQ_NODENAME": f"fastlam{os.getpid()}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(path),
            "RABBITMQ_LOG_BASE": str(path),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(path / "plugins"),
            "RABBITMQ_PID_FILE": str(path / "pid"),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(mapper),
        }
        if authority is not None:
            (path / "rabbitmq.conf").write_text(
                f"listeners.tcp = none\nlisteners.ssl.default = 127.0.0.1:{port}\n"
                f"ssl_options.certfile = {authority.certificate_path}\nssl_options.keyfile = {authority.key_path}\n"
            )
            environment["RABBITMQ_CONFIG_FILE"] = str(path / "rabbitmq.conf")
        # Erlang's port mapper, which a node would otherwise leave behind.
        epmd = Server([program("epmd", "erlang-base"), "-port", str(mapper), "-address", "127.0.0.1"], mapper, path)
        with running(epmd), running(Server([server_program], port, path, None, **environment)) as server:
            yield server
